package drops

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// Services are the base URLs by which the stack's services are asked, such as
// "http://172.19.0.2:9991". What is empty cannot be asked that way.
type Services struct {
	Zeek       map[string][]string // of each process that takes packets, by sensor
	Collector  string
	Loki       string
	Prometheus string // has what it scraped of all of them; up to five seconds old
}

// Missed is what Zeek's logs say was missed.
type Missed struct {
	Connections uint64 `json:"connections"` // that lack bytes
	Fresh       uint64 `json:"fresh"`       // of these: that began after this program had started to look
	Bytes       uint64 `json:"bytes"`       // that they lack
	Weird       uint64 `json:"weird"`       // lines of weird.log: what Zeek found odd, packets that were cut among it
	// CaptureLoss is the highest share of acknowledged data that never came, in
	// percent, that capture_loss.log has since the sensors started; null if it
	// has none.
	CaptureLoss *float64 `json:"capture_loss_percent"`
}

// patience bounds one question to a service.
const patience = 1500 * time.Millisecond

// asker asks the services for their numbers.
type asker struct {
	client *orchestrate.QueryClient
	mu     sync.Mutex     // of failed: answers come while others are asked
	failed map[string]int // of URLs: how many more pictures not to ask again
}

func newAsker() *asker {
	return &asker{client: orchestrate.NewQueryClient(patience), failed: map[string]int{}}
}

// metric is one sample: a name with its labels, and a number.
type metric struct {
	name   string
	labels map[string]string
	value  float64
}

// answer is what one service said.
type answer struct {
	metrics []metric
	stale   bool // by way of Prometheus
	err     error
}

// answers are what all of them said.
type answers struct {
	zeek            map[string]answer
	collector, loki answer
	missed          map[string]missedAnswer
}

type missedAnswer struct {
	missed Missed
	err    error
}

// begin asks all services at once and returns what waits for their answers.
// Log lines count if their time is later than since; begun is when this program
// started to look.
func (a *asker) begin(ctx context.Context, path Path, since, begun time.Time) func() answers {
	all := answers{zeek: map[string]answer{}, missed: map[string]missedAnswer{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	ask := func(bases []string, selector string, names []string, put func(answer)) {
		whole := strings.Join(bases, " ")
		skip := a.skip(whole)
		wg.Go(func() {
			got := a.metrics(ctx, bases, path.Services.Prometheus, selector, names, skip)
			mu.Lock()
			defer mu.Unlock()
			put(got)
			if got.stale || got.err != nil {
				a.rest(whole)
			}
		})
	}
	for _, s := range path.Sensors {
		ask(path.Services.Zeek[s.Name], fmt.Sprintf("job=\"zeek\",sensor=%q", s.Name), zeekNames(), func(got answer) { all.zeek[s.Name] = got })
		wg.Go(func() {
			m, err := a.missed(ctx, path.Services.Loki, s.Name, since, begun)
			mu.Lock()
			defer mu.Unlock()
			all.missed[s.Name] = missedAnswer{m, err}
		})
	}
	ask(one(path.Services.Collector), `job="collector"`, collectorNames(), func(got answer) { all.collector = got })
	ask(one(path.Services.Loki), `job="loki"`, lokiNames(), func(got answer) { all.loki = got })
	return func() answers { wg.Wait(); return all }
}

// one is a list of what is known.
func one(base string) []string {
	if base == "" {
		return nil
	}
	return []string{base}
}

// skip reports whether a service that did not answer is left in peace.
func (a *asker) skip(base string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed[base] > 0 {
		a.failed[base]--
		return true
	}
	return false
}

// rest leaves a service in peace for a while.
func (a *asker) rest(base string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed[base] == 0 {
		a.failed[base] = 10
	}
}

// collectorSent counts the lines that the collector delivered.
const collectorSent = "otelcol_exporter_sent_log_records"

// The metrics that are read.
func zeekNames() []string {
	return []string{"zeek_net_received_packets_total", "zeek_net_dropped_packets_total", "zeek_net_packet_lag_seconds", "process_start_time_seconds"}
}

func collectorNames() []string {
	return []string{"otelcol_receiver_accepted_log_records", receiverRefused, "otelcol_receiver_failed_log_records",
		collectorSent, "otelcol_exporter_send_failed_log_records", enqueueFailed,
		"otelcol_exporter_queue_size", "otelcol_exporter_queue_capacity"}
}

func lokiNames() []string {
	return []string{"loki_distributor_lines_received_total", "loki_discarded_samples_total", "process_start_time_seconds"}
}

// metrics asks a service's processes themselves, else Prometheus.
func (a *asker) metrics(ctx context.Context, bases []string, prometheus, selector string, names []string, skip bool) answer {
	err := errors.New("its address is not known here")
	if len(bases) > 0 && !skip {
		var list []metric
		if list, err = a.scrapeAll(ctx, bases, names); err == nil {
			return answer{metrics: list}
		}
	}
	if prometheus == "" {
		return answer{err: err}
	}
	list, err2 := a.query(ctx, prometheus, fmt.Sprintf(`{__name__=~"(%s)(_total)?",%s}`, strings.Join(names, "|"), selector))
	switch {
	case err2 != nil:
		return answer{err: fmt.Errorf("%w; nor by way of Prometheus: %w", err, err2)}
	case len(list) == 0:
		return answer{err: fmt.Errorf("%w; and Prometheus has nothing of it", err)}
	}
	for i := range list {
		list[i].name = wantedMetric(list[i].name, names)
	}
	return answer{metrics: list, stale: true}
}

// scrapeAll reads from several pages, all or none.
func (a *asker) scrapeAll(ctx context.Context, bases, names []string) (all []metric, err error) {
	for _, base := range bases {
		list, err := a.scrape(ctx, base+"/metrics", names)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// scrape reads the named metrics from a page in Prometheus' text format.
func (a *asker) scrape(ctx context.Context, target string, names []string) ([]metric, error) {
	page, err := a.client.Get(ctx, target)
	if err != nil {
		return nil, asked(target, err)
	}
	list, err := parseMetrics(page, names)
	if err != nil {
		return nil, asked(target, err)
	}
	return list, nil
}

// asked names the service whose answer was none.
func asked(target string, err error) error {
	host := target
	if u, parseErr := url.Parse(target); parseErr == nil {
		host = u.Host
	}
	return fmt.Errorf("ask %s: %w", host, err)
}

// parseMetrics reads a page in the text format, version 0.0.4, as far as named
// metrics of one number are concerned; a counter may have "_total" after its
// name, and loses it.
func parseMetrics(page []byte, names []string) (list []metric, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("read its metrics: %w", err)
	}
	for _, family := range slices.Sorted(maps.Keys(families)) {
		name := wantedMetric(family, names)
		if name == "" {
			continue
		}
		samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, families[family])
		if err != nil {
			return nil, fmt.Errorf("read its metrics: %w", err)
		}
		for _, s := range samples {
			list = append(list, metric{name, labelsOf(s.Metric), float64(s.Value)})
		}
	}
	return list, nil
}

func labelsOf(m model.Metric) map[string]string {
	labels := make(map[string]string, len(m))
	for name, value := range m {
		labels[string(name)] = string(value)
	}
	return labels
}

// wantedMetric returns the name under which a metric is wanted.
func wantedMetric(name string, names []string) string {
	if short := strings.TrimSuffix(name, "_total"); slices.Contains(names, short) {
		return short
	}
	if slices.Contains(names, name) {
		return name
	}
	return ""
}

// query asks Prometheus.
func (a *asker) query(ctx context.Context, base, query string) ([]metric, error) {
	return a.vector(ctx, base+"/api/v1/query", url.Values{"query": {query}})
}

func (a *asker) vector(ctx context.Context, api string, values url.Values) (list []metric, err error) {
	samples, err := a.client.Instant(ctx, api, values)
	if err != nil {
		return nil, asked(api, err)
	}
	for _, s := range samples {
		list = append(list, metric{s.Labels["__name__"], s.Labels, s.Value})
	}
	return list, nil
}

// missed asks Loki for connections with missed bytes that began after since. A
// connection's line has the time at which it began, and is written when it ends.
func (a *asker) missed(ctx context.Context, loki, sensor string, since, begun time.Time) (m Missed, err error) {
	if loki == "" {
		return m, errors.New("its address is not known here")
	}
	if m, err = a.odd(ctx, loki, sensor, since); err != nil {
		return m, err
	}
	lines := fmt.Sprintf(`{service_name="zeek",sensor=%q,log="conn"} |~ %s`, sensor, "`\"missed_bytes\":[1-9]`")
	if m.Connections, err = a.over(ctx, loki, "sum(count_over_time("+lines+" %s))", since); err != nil || m.Connections == 0 {
		return m, err
	}
	if m.Bytes, err = a.over(ctx, loki, "sum(sum_over_time("+lines+` | json missed="missed_bytes" | unwrap missed | __error__="" %s))`, since); err != nil {
		return m, err
	}
	m.Fresh, err = a.over(ctx, loki, "sum(count_over_time("+lines+" %s))", begun)
	return m, err
}

// odd asks Loki for what Zeek found odd, and for its own estimate of loss.
func (a *asker) odd(ctx context.Context, loki, sensor string, since time.Time) (m Missed, err error) {
	log := func(name string) string { return fmt.Sprintf(`{service_name="zeek",sensor=%q,log=%q}`, sensor, name) }
	if m.Weird, err = a.over(ctx, loki, "sum(count_over_time("+log("weird")+" %s))", since); err != nil {
		return m, err
	}
	lost := `max(max_over_time(` + log("capture_loss") + ` | json lost="percent_lost" | unwrap lost | __error__="" %s))`
	list, err := a.window(ctx, loki, lost, since)
	if err == nil && len(list) > 0 {
		m.CaptureLoss = &list[0].value
	}
	return m, err
}

// over asks for one number.
func (a *asker) over(ctx context.Context, loki, query string, since time.Time) (uint64, error) {
	list, err := a.window(ctx, loki, query, since)
	if err != nil || len(list) == 0 {
		return 0, err // without a line there is no number
	}
	return uint64(max(0, list[0].value)), nil
}

// window asks over the time from exactly since until now. A window is whole
// seconds long, so it ends up to a second ahead.
func (a *asker) window(ctx context.Context, loki, query string, since time.Time) ([]metric, error) {
	seconds := int64(time.Since(since)/time.Second) + 1
	values := url.Values{"query": {fmt.Sprintf(query, fmt.Sprintf("[%ds]", seconds))},
		"time": {strconv.FormatInt(since.Add(time.Duration(seconds)*time.Second).UnixNano(), 10)}}
	return a.vector(ctx, loki+"/loki/api/v1/query", values)
}

// services adds the hops behind the kernel.
func (r *Reader) services(p *Picture, all answers) {
	for _, s := range r.path.Sensors {
		p.States = append(p.States, zeekState(s.Name, all.zeek[s.Name]), logsState(s.Name, all.missed[s.Name]))
	}
	collector := collectorState(all.collector)
	r.balance.add(&collector, all.collector, p.At)
	p.States = append(p.States, collector, lokiState(all.loki))
}

// take starts a state with a service's answer, and reports whether there is one.
func (s *State) take(a answer) bool {
	if a.err != nil {
		s.unknown("its metrics", a.err)
		return false
	}
	if a.stale {
		s.Unknown = append(s.Unknown, Unknown{"its metrics of this very moment", "only what Prometheus scraped last is to be had: up to 5 s old"})
	}
	for _, m := range a.metrics {
		if m.name == "process_start_time_seconds" {
			s.Identity += " " + strconv.FormatFloat(m.value, 'f', -1, 64)
		}
	}
	return true
}

// sum adds the samples of one name as a value. A counter that a service has not
// counted with yet is not there: it counts as 0 beside others that are.
func (s *State) sum(role Role, a answer, name string) {
	v := Value{Name: name, Role: role, bits: 64}
	for _, m := range a.metrics {
		if m.name == name && m.value > 0 {
			v.N += uint64(m.value)
		}
	}
	s.Values = append(s.Values, v)
}

// gauge returns the sum of a gauge's samples.
func (a answer) gauge(name string) (sum float64) {
	for _, m := range a.metrics {
		if m.name == name && m.value > 0 { // nor NaN
			sum += m.value
		}
	}
	return sum
}

func (a answer) has(name string) bool {
	return slices.ContainsFunc(a.metrics, func(m metric) bool { return m.name == name })
}

// zeekState is what Zeek says of itself. It cannot see what its own socket drops.
func zeekState(sensor string, a answer) State {
	s := State{Hop: HopZeek, Sensor: sensor, Name: "Zeek of " + sensor}
	if !s.take(a) {
		return s
	}
	if !a.has("zeek_net_received_packets_total") {
		s.unknown("its packets", errors.New("its metrics do not have them"))
		return s
	}
	s.sum(RoleIn, a, "zeek_net_received_packets_total")
	s.sum(RoleVain, a, "zeek_net_dropped_packets_total")
	s.workers(a)
	for _, m := range a.metrics {
		if m.name == "zeek_net_packet_lag_seconds" && m.value > s.Facts.LagSecond { // nor NaN
			s.Facts.LagSecond = m.value
		}
	}
	return s
}

// workers adds what each worker of a cluster took.
func (s *State) workers(a answer) {
	var shares []Value
	for _, m := range a.metrics {
		if node := m.labels["node"]; m.name == "zeek_net_received_packets_total" && strings.HasPrefix(node, "worker-") {
			shares = append(shares, Value{Name: "packets of " + node, Role: RoleShare, N: uint64(max(0, m.value)), bits: 64})
		}
	}
	slices.SortFunc(shares, func(a, b Value) int { // worker-2 before worker-10
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	s.Values = append(s.Values, shares...)
}

// weirdLines counts what Zeek found odd.
const weirdLines = "lines of weird.log"

// logsState is what the logs say. Bytes are missed where an acknowledgement came
// for data that did not.
func logsState(sensor string, m missedAnswer) State {
	s := State{Hop: HopLogs, Sensor: sensor, Name: "logs of " + sensor, Lines: true}
	if m.err != nil {
		s.unknown("connections with missed bytes", m.err)
		return s
	}
	s.Values = []Value{
		{Name: "connections with missed bytes", Role: RoleSign, N: m.missed.Connections, bits: 64},
		{Name: "missed bytes", Role: RoleSign, N: m.missed.Bytes, bits: 64},
		{Name: "connections with missed bytes, begun since the first look", Role: RoleSign, N: m.missed.Fresh, bits: 64},
		{Name: weirdLines, Role: RoleSign, N: m.missed.Weird, bits: 64},
	}
	s.Facts.CaptureLoss = m.missed.CaptureLoss
	return s
}

// collectorState counts what the collector gave up. What it refuses because it
// lacks memory it offers again, each time counted; and what waits for Loki is in
// Zeek's files.
func collectorState(a answer) State {
	s := State{Hop: HopCollector, Name: "collector", Lines: true}
	if !s.take(a) {
		return s
	}
	s.sum(RoleIn, a, "otelcol_receiver_accepted_log_records")
	s.sum(RoleLost, a, "otelcol_exporter_send_failed_log_records")
	s.sum(RoleSign, a, collectorSent)
	s.sum(RoleHeld, a, enqueueFailed)
	s.sum(RoleHeld, a, receiverRefused)
	s.sum(RoleHeld, a, "otelcol_receiver_failed_log_records")
	if size := a.gauge("otelcol_exporter_queue_capacity"); size > 0 {
		s.Queues = append(s.Queues, Queue{Used: int64(a.gauge("otelcol_exporter_queue_size")), Size: int64(size), Unit: "requests", Exact: true})
	}
	return s
}

// balance is the collector's account of lines: what it accepted it has delivered,
// given up, or still holds. What is missing when it holds nothing has vanished.
type balance struct {
	accepted, delivered uint64 // delivered or given up
	changed             time.Time
	vanished            uint64
	known               bool
}

// atRest is how long nothing must have moved until lines count as vanished:
// longer than a request is under way.
const atRest = 2 * time.Second

// vanishedLines is the name of the value.
const vanishedLines = "lines accepted, but neither delivered nor waiting"

// add looks at the account and adds the value, as far as it is known.
func (b *balance) add(s *State, a answer, now time.Time) {
	if a.err != nil {
		return
	}
	var accepted, delivered uint64
	for _, v := range s.Values {
		switch {
		case v.Role == RoleIn:
			accepted += v.N
		case v.Name == collectorSent || v.Role == RoleLost:
			delivered += v.N
		}
	}
	waiting := a.gauge("otelcol_exporter_queue_size") > 0
	moved := accepted != b.accepted || delivered != b.delivered
	first := b.changed.IsZero()
	if moved || waiting {
		b.accepted, b.delivered, b.changed = accepted, delivered, now
	}
	if !waiting && (first && accepted <= delivered || now.Sub(b.changed) >= atRest) {
		b.vanished, b.known = max(b.vanished, accepted-min(accepted, delivered)), true
	}
	if b.known {
		s.Values = append(s.Values, Value{Name: vanishedLines, Role: RoleLost, N: b.vanished, bits: 64})
	}
}

// blocked is the reason for lines that Loki refuses while its share of the disk is
// used up: the collector offers them again (assets/stack/janitor/janitor.sh).
const blocked = "blocked_ingestion"

// lokiState counts what Loki discarded, by its reasons.
func lokiState(a answer) State {
	s := State{Hop: HopLoki, Name: "Loki", Lines: true}
	if !s.take(a) {
		return s
	}
	s.sum(RoleIn, a, "loki_distributor_lines_received_total")
	lost := answer{}
	for _, m := range a.metrics {
		if m.name != "loki_discarded_samples_total" || m.labels["reason"] != blocked {
			lost.metrics = append(lost.metrics, m)
		}
	}
	s.sum(RoleLost, lost, "loki_discarded_samples_total")
	byReason := map[string]float64{}
	for _, m := range a.metrics {
		if m.name == "loki_discarded_samples_total" {
			byReason[cmp.Or(m.labels["reason"], "no reason given")] += m.value
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		s.Values = append(s.Values, Value{Name: "discarded: " + reason, Role: RolePart, N: uint64(byReason[reason]), bits: 64})
	}
	return s
}
