package drops

import "testing"

// Whatever text a service to come answers, reading it ends.
func FuzzParse(f *testing.F) {
	f.Add("otelcol_exporter_queue_size{a=\"b\\\"}\",c=\"d\"} 5 1700000000\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = parseMetrics([]byte(text), collectorNames())
	})
}
