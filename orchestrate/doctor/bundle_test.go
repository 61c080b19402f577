package doctor

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// The secrets that are seeded, each where such a one is found in practice.
func seeded() map[string]string {
	return map[string]string{
		"Grafana's password":         `Gr4fana pass&"word\1`,
		"a password set at first up": "gestern-horse-gestern",
		"the proxy's password":       "pr0xy-p@ss/word",
		"the registry's login":       "r3gistry-horse",
		"an identity token":          "1dentity-horse-token",
		"the log driver's token":     "5plunk-horse-4711",
		"a label":                    "l4bel-horse-users",
		"a mirror's login":           "m1rror-horse",
		"a header":                   "bGVhZGVyOmhvcnNl",
		"a token in a log":           "glsa_0123456789abcdefABCDEF",
		"a volume's option":          "v0lume-horse",
		"a short one":                "hunt",
		"a password in a sentence":   "h0rse-in-a-sentence!",
		"a passphrase in quotes":     "correct horse of prose",
		"a word of the traffic":      "USER hans PASS traffic-horse",
		"a field of the traffic":     "field-horse-4711",
		"a second line":              "second-line-horse",
	}
}

// told is an engine with a stack whose every answer holds secrets.
type told struct {
	stub
	secrets map[string]string
}

func (e told) Containers(context.Context, string) ([]orchestrate.Container, error) {
	return []orchestrate.Container{{ID: "z", Name: "zeekdemo-zeek-1", Project: "zeekdemo", Service: "zeek", State: "running", PID: 4711}}, nil
}

func (e told) Complete(_ context.Context, p orchestrate.Project) (Stack, error) {
	document, err := json.Marshal(map[string]any{"services": map[string]any{"grafana": map[string]any{
		"environment": map[string]string{"GF_SECURITY_ADMIN_PASSWORD": p.Env["ZEEKDEMO_GRAFANA_PASSWORD"], "GF_SECURITY_ADMIN_USER": "zeek"},
		"labels":      map[string]string{"traefik.basicauth.password": e.secrets["a label"]}}},
		"configs": map[string]any{"grafana": map[string]string{"content": "[security]\nadmin_user = zeek\nsecret_key = " + e.secrets["a short one"] + "\n"}}})
	return Stack{JSON: document}, err
}

func (e told) Documents(context.Context, string) (map[string]json.RawMessage, error) {
	marshal := func(v any) json.RawMessage {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return data
	}
	return map[string]json.RawMessage{
		"engine/info.json": marshal(map[string]any{"HttpProxy": "http://hans:" + e.secrets["the proxy's password"] + "@proxy.example:3128", "NCPU": 8,
			"RegistryConfig": map[string]any{"Mirrors": []string{"https://hans:" + e.secrets["a mirror's login"] + "@mirror.example/"}}}),
		"containers/zeekdemo-grafana-1.json": marshal(map[string]any{
			"Config":     map[string]any{"Env": []string{"PATH=/bin", "GF_SECURITY_ADMIN_PASSWORD=" + e.secrets["a password set at first up"]}, "Labels": map[string]string{"x-auth-users": e.secrets["a label"]}},
			"HostConfig": map[string]any{"LogConfig": map[string]any{"Config": map[string]string{"splunk-token": e.secrets["the log driver's token"], "max-size": "10m"}}}}),
		"engine/volumes.json": marshal([]any{map[string]any{"Options": map[string]string{"o": "username=hans,password=" + e.secrets["a volume's option"]}}}),
	}, errors.New("networks: 500 for " + e.secrets["a label"])
}

func (e told) Logs(_ context.Context, r orchestrate.LogRequest) error {
	for _, line := range []string{
		"starting " + r.Service,
		`level=error msg="login failed" user=zeek password="` + e.secrets["a password set at first up"] + `"`,
		"invalid password " + e.secrets["Grafana's password"] + " for zeek",
		"GET /login?password=" + `Gr4fana+pass%26%22word%5C1`,
		"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("zeek:"+e.secrets["Grafana's password"])),
		"proxy says 407 to hans:" + e.secrets["the proxy's password"],
		"token " + e.secrets["a token in a log"] + " has expired, " + e.secrets["an identity token"] + " too",
		"pull: login of hans with " + e.secrets["the registry's login"] + " failed: " + e.secrets["a header"],
		"the admin password is now " + e.secrets["a password in a sentence"] + ", change it",
		`cannot decrypt with passphrase "` + e.secrets["a passphrase in quotes"] + `"`,
		e.secrets["a password in a sentence"] + " was tried again; " + e.secrets["a second line"],
		"the last word is " + e.secrets["a short one"],
	} {
		r.Line(r.Service, line)
	}
	return nil
}

func (e told) Exec(_ context.Context, _ string, cmd []string, stdout, stderr io.Writer) (int, error) {
	if cmd[0] != "sh" {
		fmt.Fprintln(stderr, "no such file")
		return 1, nil
	}
	fmt.Fprintln(stdout, "== stats.log\n{\"mem\":1}")
	message, err := json.Marshal(fmt.Sprintf(`unexpected reply "%s" for [user=hans, password=%s]`, e.secrets["a word of the traffic"], e.secrets["a field of the traffic"]))
	if err != nil {
		return 1, err
	}
	fmt.Fprintf(stdout, "== reporter.log\n{\"ts\":1,\"level\":\"Reporter::WARNING\",\"message\":%s}\n", message)
	return 0, nil
}

// collect makes a bundle on a machine full of secrets.
func collect(t *testing.T, secrets map[string]string, engine orchestrate.Engine) Bundle {
	t.Helper()
	p := newStub(t, answers())
	p.Engine = engine
	p.Project.Env = map[string]string{"ZEEKDEMO_GRAFANA_PASSWORD": secrets["Grafana's password"]}
	daemon := filepath.Join(p.Root, "etc/docker/daemon.json")
	login := filepath.Join(t.TempDir(), "config.json")
	for file, content := range map[string]string{
		daemon: `{"proxies":{"http-proxy":"http://hans:` + secrets["the proxy's password"] + `@proxy.example:3128"},"log-opts":{"splunk-token":"` + secrets["the log driver's token"] + `"}}`,
		login: `{"auths":{"r.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("hans:"+secrets["the registry's login"])) + `","identitytoken":"` +
			secrets["an identity token"] + `"}},"HttpHeaders":{"X-Api-Key":"` + secrets["a header"] + `"}}`,
		filepath.Join(p.Root, "proc/4711/net/snmp"): "Udp: InDatagrams RcvbufErrors\nUdp: 100 7\n",
		filepath.Join(p.Root, "proc/net/snmp"):      "Udp: InDatagrams RcvbufErrors\nUdp: 5 0\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	facts := p.Probe(t.Context())
	c := Collector{Prober: p, Facts: facts, Report: Diagnose(facts), Version: json.RawMessage(`{"version":"1"}`), Text: []byte("ok engine\n"), Secrets: []string{login},
		Environ: []string{"HTTPS_PROXY=http://hans:" + secrets["the proxy's password"] + "@proxy.example:3128", "HOME=/home/hans",
			"ZEEKDEMO_GRAFANA_PASSWORD=" + secrets["Grafana's password"], "ZEEKDEMO_IMAGE_ZEEK=zeek/zeek:9.0",
			"DOCKER_AUTH_CONFIG={\n" + secrets["a second line"] + "\n}"}}
	return c.Collect(t.Context())
}

// None of the secrets is anywhere in the bundle, in no common encoding, and what
// matters still is.
func TestABundleHasNoSecret(t *testing.T) {
	secrets := seeded()
	b := collect(t, secrets, told{answers(), secrets})
	if len(b.Files) < 15 {
		t.Errorf("only %d files: %v", len(b.Files), names(b))
	}
	for _, f := range b.Files {
		t.Logf("== %s\n%s", f.Name, f.Data)
		for what, secret := range secrets {
			quoted, _ := json.Marshal(secret)
			for _, form := range []string{secret, strings.Trim(string(quoted), `"`), base64.StdEncoding.EncodeToString([]byte(secret))} {
				if bytes.Contains(f.Data, []byte(form)) {
					t.Errorf("%s has %s (%s)", f.Name, what, form)
				}
			}
		}
		if strings.HasSuffix(f.Name, ".json") && !json.Valid(f.Data) {
			t.Errorf("%s is no JSON any more", f.Name)
		}
	}
	for name, want := range map[string]string{
		"compose.json":                   `"GF_SECURITY_ADMIN_USER": "zeek"`,
		"environment.txt":                "ZEEKDEMO_IMAGE_ZEEK=zeek/zeek:9.0",
		"engine/info.json":               `"NCPU": 8`,
		"logs/grafana.log":               "starting grafana",
		"logs/zeek-itself.log":           `"message":"unexpected reply \"[removed]\" for [removed]"`,
		"counters/drops.json":            "UdpRcvbufErrors",
		"counters/zeek/snmp":             "Udp: 100 7",
		"machine/proc/meminfo":           "MemTotal",
		"version.json":                   `"version": "1"`,
		"doctor.txt":                     "ok engine",
		"README.txt":                     "logs/zeek.log",
		"machine/etc/docker/daemon.json": "proxy.example",
	} {
		i := slices.IndexFunc(b.Files, func(f File) bool { return f.Name == name })
		if i < 0 || !bytes.Contains(b.Files[i].Data, []byte(want)) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	if want := []string{"engine: networks: 500 for [removed]"}; !slices.Equal(b.Missing, want) {
		t.Errorf("missing %q, want %q", b.Missing, want)
	}
}

func names(b Bundle) (list []string) {
	for _, f := range b.Files {
		list = append(list, f.Name)
	}
	return list
}

// With an engine that does not answer there is a bundle all the same, and it
// says what is missing.
func TestABundleWithoutAnEngine(t *testing.T) {
	stopped := answers()
	stopped.info = infoOf(false, errors.New("no such file"))
	b := collect(t, seeded(), stopped)
	for _, want := range []string{"README.txt", "doctor.json", "compose.json", "machine/proc/meminfo", "counters/host/snmp"} {
		if !slices.Contains(names(b), want) {
			t.Errorf("%s is not among %v", want, names(b))
		}
	}
	for _, want := range []string{"engine/ and containers/: ", "logs/: ", "counters of the sensors: "} {
		if !slices.Contains(b.Missing, want+notLooked) {
			t.Errorf("%q does not say that %s%s", b.Missing, want, notLooked)
		}
	}
}

// Of a log that is too long the last whole lines are kept.
func TestTail(t *testing.T) {
	var log tail
	for i := range 300_000 {
		fmt.Fprintf(&log, "line %d of the log\n", i)
	}
	kept := log.last()
	if len(kept) > tailBytes || len(kept) < tailBytes-100 || !bytes.HasPrefix(kept, []byte("line ")) || !bytes.HasSuffix(kept, []byte("line 299999 of the log\n")) {
		t.Errorf("%d bytes from %.30q to %q", len(kept), kept, kept[len(kept)-30:])
	}
}
