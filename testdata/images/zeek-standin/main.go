// Command zeek-standin takes Zeek's place in the scenarios of machines that
// cannot pull Zeek's image. It is not Zeek and says so: it accepts the command
// line the stack uses, opens the UDP packet source, and writes connection
// logs of the real shape, so that everything around Zeek can be exercised on
// real packets. What is random in Zeek from process to process is random here
// too: the identifiers of connections and files, the order of sets, and what
// depends on the order of a table; see seeds.go. It runs no Zeek scripts: from the script text it takes only
// the options named in script.go.
//
// It differs from Zeek on purpose in one respect: on a live source a flow
// without an end (UDP, ICMP, unfinished TCP) is logged after seconds of
// silence, not minutes, so that a scenario need not wait for it. A capture of
// the last hour is read with the same limits, so that it agrees with the live
// run it was made in.
//
// Environment, all optional, for fault scenarios:
//
//	ZEEK_STANDIN_METRICS  a file that /metrics serves verbatim
//	ZEEK_STANDIN_DELAY    time passed on every packet, such as 20us (a slow reader)
//	ZEEK_STANDIN_PAUSE    time without reading after the first packet, such as 3s
//	ZEEK_STANDIN_IDLE     silence after which a live flow ends, instead of the defaults
//
// and Zeek's own ZEEK_SEED_FILE, ZEEK_DNS_FAKE, CLUSTER_NODE (see cluster.go) and
// ZEEK_TELEMETRY_LISTEN_ADDRESS. With --standin-cluster-layout first it is
// zeek-cluster-layout-generator, see layout.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is what the stand-in reports where Zeek reports its own.
const version = "9.0.0-standin"

const notice = "zeek-standin: this is NOT Zeek but a stand-in for tests (version " + version + ")"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) > 1 && os.Args[1] == layoutFlag {
		os.Exit(writeLayout(os.Args[2:], os.Stdout, os.Stderr))
	}
	code := run(ctx, os.Args[1:], environment, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// environment is os.Getenv, but for ZEEK_DNS_FAKE, of which Zeek looks only whether it
// is set: src/Options.cc, fake_dns.
func environment(name string) string {
	value, set := os.LookupEnv(name)
	if name == "ZEEK_DNS_FAKE" && set && value == "" {
		return "set"
	}
	return value
}

// run is the whole program: it parses, sets up, and handles packets until the
// capture file ends or ctx does. It returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	opts, err := parseArgs(args)
	if err != nil {
		fmt.Fprintln(stderr, "zeek-standin:", err)
		return 1
	}
	if opts.version {
		fmt.Fprintln(stdout, "zeek version", version)
		return 0
	}
	fmt.Fprintln(stderr, notice)
	if err := sense(ctx, opts, getenv, stderr); err != nil {
		fmt.Fprintln(stderr, "fatal error:", err)
		return 1
	}
	return 0
}

// sense reads the one packet source of opts to its end and logs what it saw.
func sense(ctx context.Context, opts options, getenv func(string) string, stderr io.Writer) error {
	node, err := joinCluster(opts, getenv)
	if err != nil {
		return err
	}
	script, err := loadScript(opts, node.script(), stderr)
	if err != nil {
		return err
	}
	faults, err := parseFaults(getenv)
	if err != nil {
		return err
	}
	seeds, err := newSeeds(opts, getenv)
	if err != nil {
		return err
	}
	if err := writeColumns(script, seeds); err != nil {
		return err
	}
	s := newSensor(script, newLogSet(script.logDir), seeds, newResolver(getenv, "/etc/resolv.conf"))
	if opts.readFile != "" {
		return errors.Join(readCapture(ctx, opts.readFile, s), s.finish())
	}
	s.logs.rotate, s.logs.pass = script.rotate, script.postprocessor
	if node != nil {
		s.limits = liveLimits(faults.idle)
		return node.run(ctx, opts.iface, script, faults, s, stderr)
	}
	if opts.iface == "" {
		return errors.New("nothing to do: give -i udp::ADDR:PORT[:ENCAPSULATION][:dlt=LINKTYPE] or -r FILE")
	}
	s.limits = liveLimits(faults.idle)
	s.logs.rotate = script.rotate
	metrics, err := serveMetrics(script, faults.metricsFile, s)
	if err != nil {
		return err
	}
	defer metrics.stop()
	return errors.Join(listen(ctx, opts.iface, script, faults, s, stderr), s.finish())
}

// faults are the misbehaviours that scenarios ask for by environment.
type faults struct {
	metricsFile string
	delay       time.Duration
	pause       time.Duration
	idle        time.Duration
}

// parseFaults reads the ZEEK_STANDIN_ variables.
func parseFaults(getenv func(string) string) (faults, error) {
	f := faults{metricsFile: getenv("ZEEK_STANDIN_METRICS")}
	for name, value := range map[string]*time.Duration{
		"ZEEK_STANDIN_DELAY": &f.delay,
		"ZEEK_STANDIN_PAUSE": &f.pause,
		"ZEEK_STANDIN_IDLE":  &f.idle,
	} {
		text := getenv(name)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return faults{}, fmt.Errorf("read %s: %w", name, err)
		}
		*value = d
	}
	return f, nil
}
