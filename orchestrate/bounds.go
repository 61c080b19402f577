package orchestrate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds are for how long, and how much, the stack keeps of what it stores: Loki's
// lines, Prometheus' samples, and the files of the sensors. A zero is the default.
//
// What holds them:
//
//   - By age: Loki and Prometheus delete what is older than Retention, Loki some
//     twenty minutes late, Prometheus by blocks of two hours. The sensors' files are
//     a buffer for the way to Loki: they are kept a day at most.
//   - By size: Prometheus deletes its oldest blocks beyond its share. Each sensor
//     removes its oldest finished files beyond its own; the files being written come
//     on top. Loki knows no size: the janitor lowers the age of what it keeps, and
//     has it refuse lines while its share is used up, so that it exceeds it by what
//     comes between two looks. The collector's positions have 16 MiB of their own.
type Bounds struct {
	Retention time.Duration
	MaxDisk   int64 // bytes
}

// The default bounds, also those of the Compose file by itself.
const (
	DefaultRetention       = 7 * 24 * time.Hour
	DefaultMaxDisk   int64 = 20e9
)

// What bounds are accepted: below, the services' own granularity is more than that.
const (
	leastRetention       = time.Minute
	leastDisk      int64 = 50e6
)

// The shares of MaxDisk, in thousandths. What is left is for the collector's
// positions and for what comes between two looks.
const (
	lokiShare       = 600
	sensorShare     = 125 // of each
	prometheusShare = 100
)

// What a sensor's files are kept for at most, and in how many pieces each log comes
// by then. The collector looks at every file twice a second, which at a thousand
// files takes a fifth of a CPU.
const (
	mostOfFiles = 24 * time.Hour
	pieces      = 24
	leastPiece  = 5 * time.Second
)

func (b Bounds) validate() error {
	switch {
	case b.Retention != 0 && b.Retention < leastRetention:
		return fmt.Errorf("keep for %s: want a minute at least", FormatAge(b.Retention))
	case b.MaxDisk != 0 && b.MaxDisk < leastDisk:
		return fmt.Errorf("keep %d bytes at most: want 50 MB at least", b.MaxDisk)
	}
	return nil
}

// environment are the variables of the Compose file that set the bounds; none for
// the defaults.
func (b Bounds) environment() map[string]string {
	env := map[string]string{}
	if b.Retention != 0 {
		files := min(b.Retention, mostOfFiles)
		env["ZEEKDEMO_RETENTION"] = FormatAge(b.Retention)
		env["ZEEKDEMO_KEEP"] = seconds(b.Retention)
		env["ZEEKDEMO_LOG_KEEP"] = seconds(files)
		env["ZEEKDEMO_LOG_ROTATE"] = seconds(max(files/pieces, leastPiece))
	}
	if b.MaxDisk != 0 {
		share := func(thousandths int64) int64 { return b.MaxDisk / 1000 * thousandths }
		env["ZEEKDEMO_LOKI_DISK"] = strconv.FormatInt(share(lokiShare)/1024, 10)
		env["ZEEKDEMO_LOG_DISK"] = strconv.FormatInt(share(sensorShare)/1024, 10)
		env["ZEEKDEMO_PROMETHEUS_DISK"] = strconv.FormatInt(share(prometheusShare), 10)
	}
	return env
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// ParseAge reads a time as time.ParseDuration does, and days before it: 7d, 1d12h,
// 36h, 90m.
func ParseAge(text string) (time.Duration, error) {
	rest := text
	var age time.Duration
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, errNoAge
		}
		age, rest = time.Duration(n)*24*time.Hour, after
	}
	if rest != "" || age == 0 {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, errNoAge
		}
		age += d
	}
	return age, nil
}

var errNoAge = errors.New("want a time such as 7d, 36h or 90m")

// FormatAge writes whole seconds as Loki, Prometheus and [ParseAge] read them: 7d,
// 36h, 90m, 45s.
func FormatAge(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= unit.length && d%unit.length == 0 {
			return strconv.FormatInt(int64(d/unit.length), 10) + unit.name
		}
	}
	return seconds(d) + "s"
}

// ParseSize reads a size in bytes: 20G, 500MB with decimal prefixes, 20GiB with
// binary ones.
func ParseSize(text string) (int64, error) {
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(text)
	}
	n, err := strconv.ParseFloat(text[:end], 64)
	unit, known := map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
		"KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30, "TI": 1 << 40}[strings.TrimSuffix(strings.ToUpper(text[end:]), "B")]
	if err != nil || !known || n*unit > 1<<62 {
		return 0, errors.New("want a size such as 20G, 500M or 20GiB")
	}
	return int64(n * unit), nil
}
