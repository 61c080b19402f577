package doctor

import (
	"encoding/json"
	"strings"
	"testing"
)

// Each row is a document with a secret, and what has to be left of it.
func TestSecretsAreRemovedByWhereTheyAre(t *testing.T) {
	for name, tc := range map[string]struct{ document, want string }{
		"variable":                {"GF_SECURITY_ADMIN_PASSWORD=hor se=battery\n", "GF_SECURITY_ADMIN_PASSWORD=[removed]\n"},
		"variable without a word": {"PGPASSWORD=horse", "PGPASSWORD=[removed]"},
		"no secret":               {"GF_SECURITY_ADMIN_USER=zeek", "GF_SECURITY_ADMIN_USER=zeek"},
		"empty":                   {"REGISTRY_TOKEN=", "REGISTRY_TOKEN="},
		"proxy":                   {"HTTPS_PROXY=http://hans:ho/r@se@proxy.example:3128", "HTTPS_PROXY=http://[removed]@proxy.example:3128"},
		"URL in a log":            {`pull "https://hans:horse@mirror.example/v2/": EOF`, `pull "https://[removed]@mirror.example/v2/": EOF`},
		"URL with a query":        {"GET /v1/read?lang=en&access_token=horse&x=1 200", "GET /v1/read?lang=en&access_token=[removed]&x=1 200"},
		"header":                  {"Authorization: Basic aGFuczpob3JzZQ==", "Authorization: [removed]"},
		"header in a log":         {`headers={"Authorization":"Negotiate horse"} status=401`, `headers={"Authorization":"[removed]"} status=401`},
		"scheme":                  {"got bearer horse.horse-horse back", "got bearer [removed] back"},
		"log line":                {`level=warn msg="login failed" password="cor rect" user=zeek`, `level=warn msg="login failed" password="[removed]" user=zeek`},
		"inside a field":          {`msg: token=horse&next`, `msg: token=[removed]&next`},
		"escaped in a log":        {`{"a": 1} body="{\"api_key\":\"horse\",\"b\":2}"`, `{"a": 1} body="{\"api_key\":\"[removed]\",\"b\":2}"`},
		"YAML":                    {"  admin_password: correct horse battery # mine\n  user: zeek\n", "  admin_password: [removed]\n  user: zeek\n"},
		"ini":                     {"secret_key = correct horse\n[auth]\nenabled = true\n", "secret_key = [removed]\n[auth]\nenabled = true\n"},
		"option":                  {"--grafana-password=horse", "--grafana-password=[removed]"},
		"login of curl":           {"curl -fsu x -u hans:horse http://x", "curl -fsu x -u [removed] http://x"},
		"login in arguments":      {`{"Test":["CMD","curl","--user","hans:horse","x"]}`, `{"Test":["CMD","curl","--user","[removed]","x"]}`},
		"two on a line":           {"a token=horse, b_secret=horse c", "a token=[removed], b_secret=[removed] c"},
		"switch":                  {"auth_enabled: false", "auth_enabled: false"},
		"key of a map":            {"key: value", "key: value"},
		"private key":             {"a\n-----BEGIN EC PRIVATE KEY-----\nhorse\n-----END EC PRIVATE KEY-----\nb\n", "a\n[removed]\nb\n"},
		"private key, cut":        {"-----BEGIN PRIVATE KEY-----\nhorse\nhorse", "[removed]"},
		"certificate":             {"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"},
		"web token":               {"cannot verify eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl: expired", "cannot verify [removed]: expired"},
		"token by its form":       {"remote: ghp_0123456789abcdef was revoked", "remote: [removed] was revoked"},
		"JSON":                    {`{"auths":{"r.example":{"auth":"aGFuczpob3JzZQ=="}}}`, `{"auths":{"r.example":{"auth":"[removed]"}}}`},
		"JSON, nothing set":       {`{"Secret":"","TokenSet":true,"Cookies":null}`, `{"Secret":"","TokenSet":true,"Cookies":null}`},
		"JSON, numbers":           {`{"pin_token":123456,"n":9007199254740993}`, `{"pin_token":"[removed]","n":9007199254740993}`},
		"environment in JSON":     {`{"Env":["PATH=/bin","A_TOKEN=hor se"]}`, `{"Env":["PATH=/bin","A_TOKEN=[removed]"]}`},
		"arguments in JSON":       {`{"Cmd":["run","--splunk-token","horse","--x=1"]}`, `{"Cmd":["run","--splunk-token","[removed]","--x=1"]}`},
		"labels in JSON":          {`{"Labels":{"traefik.auth.users":"horse","a":"b"}}`, `{"Labels":{"traefik.auth.users":"[removed]","a":"b"}}`},
		"pairs in JSON":           {`[{"name":"API_KEY","value":"horse"}]`, `[{"name":"API_KEY","value":"[removed]"}]`},
		"configuration in JSON":   {`{"content":"a: 1\npassword: correct horse\nb: 2"}`, `{"content":"a: 1\npassword: [removed]\nb: 2"}`},
		"proxy in JSON":           {`{"proxies":{"default":{"httpProxy":"http://u:p@x:1"}}}`, `{"proxies":{"default":{"httpProxy":"http://[removed]@x:1"}}}`},
		"sentence":                {"the password is horse, says hans", "the password is [removed], says hans"},
		"sentence of how":         {"the password is wrong; the token was not found, a secret is required", "the password is wrong; the token was not found, a secret is required"},
		"sentence in quotes":      {`passphrase 'correct horse' refused`, `passphrase '[removed]' refused`},
		"sentence of two":         {`password changed from "old horse" to "new horse"`, `password changed from "[removed]" to "new horse"`},
		"sentence of whose":       {"the password for user hans is horse-b", "the password for user hans is [removed]"},
		"sentence of whom":        {"token for loki expired, the cookie of hans has gone", "token for loki expired, the cookie of hans has gone"},
		"no link":                 {"invalid token h0rse-battery! for loki", "invalid token [removed] for loki"},
		"no link, plain words":    {"token expired, tokens per second, secret zeekdemo-grafana-1 mounted, cookie 12", "token expired, tokens per second, secret zeekdemo-grafana-1 mounted, cookie 12"},
		"no link, API key":        {"API key 9f8e7d6c5b4a3f2e rejected", "API key [removed] rejected"},
		"what it is called":       {"took h0rse-battery! as its admin password.", "took [removed] as its admin password."},
		"login without scheme":    {"dial hans:horse-b@proxy.example:3128: refused", "dial hans:[removed]@proxy.example:3128: refused"},
		"image by its digest":     {"pull zeek/zeek:9.0.1@sha256:0123abcd, mailto:hans@x.example", "pull zeek/zeek:9.0.1@sha256:0123abcd, mailto:hans@x.example"},
		"sentence in JSON lines":  {`{"ts":1.50,"msg":"the password is horse"}` + "\n" + `{"b":1,"a":2}` + "\n", `{"msg":"the password is [removed]","ts":1.50}` + "\n" + `{"b":1,"a":2}` + "\n"},
		"pairs in JSON lines":     {`{"name":"X_TOKEN","value":"horse"}` + "\n{}\n", `{"name":"X_TOKEN","value":"[removed]"}` + "\n{}\n"},
		"several lines in JSON":   {`{"Env":["A_TOKEN=hor\nse","B=1"]}`, `{"Env":["A_TOKEN=[removed]","B=1"]}`},
		"Google's form":           {"got AIzaSyA0123456789abcdef back", "got [removed] back"},
		"kernel's counters":       {"Udp: InDatagrams NoPorts\nUdp: 17 4\n", "Udp: InDatagrams NoPorts\nUdp: 17 4\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := string(NewRedactor().Redact([]byte(tc.document))), tc.want
			if json.Valid([]byte(want)) && strings.HasPrefix(want, "{\"") || strings.HasPrefix(want, "[{") {
				got, want = compact(t, got), compact(t, want)
			}
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func compact(t *testing.T, document string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(document))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What was found in one place is removed from all others, however it is
// written there.
func TestSecretsAreRemovedByWhatTheyAre(t *testing.T) {
	for name, tc := range map[string]struct{ learned, document, want string }{
		"as it is":            {"GRAFANA_PASSWORD=k7!horse&battery", "Invalid login k7!horse&battery.", "Invalid login [removed]."},
		"in a URL":            {"GRAFANA_PASSWORD=k7!horse&battery", "/login?p=k7%21horse%26battery", "/login?p=[removed]"},
		"in JSON":             {`GRAFANA_PASSWORD=k7"horse\battery`, `{"message":"k7\"horse\\battery is wrong"}`, "{\n  \"message\": \"[removed] is wrong\"\n}\n"},
		"in base64":           {"GRAFANA_PASSWORD=k7horsebattery", "sent azdob3JzZWJhdHRlcnk= away", "sent [removed] away"},
		"of a login":          {`{"auths":{"r":{"auth":"aGFuczpob3JzZWJhdHRlcnk="}}}`, "password of hans is horsebattery", "password of hans is [removed]"},
		"of a proxy":          {"HTTP_PROXY=http://hans:horse%21battery@proxy:1", "407 for hans/horse!battery", "407 for hans/[removed]"},
		"in JSON, & too":      {`GRAFANA_PASSWORD=k7"horse&battery`, `{"message":"k7\"horse&battery is wrong"}`, "{\n  \"message\": \"[removed] is wrong\"\n}\n"},
		"in a login's base64": {"GRAFANA_PASSWORD=k7horsebattery", "sent emVlazprN2hvcnNlYmF0dGVyeQ== away", "sent emVlazpr[removed]eQ== away"},
		"told in a sentence":  {"the token is k7horsebattery!", "k7horsebattery came", "[removed] came"},
		"of several lines":    {"{\"Env\":[\"A_TOKEN=horsefirst\\nhorsesecond\"]}", "then horsesecond came", "then [removed] came"},
		"short, as a word":    {"X_TOKEN=hunt", "hunt hunter the-hunt ghunt", "[removed] hunter the-[removed] ghunt"},
		"too short":           {"X_TOKEN=abc", "abc", "abc"},
		"a small number":      {"X_TOKEN=4789", "UDP 4789", "UDP 4789"},
		"the public password": {"GF_SECURITY_ADMIN_PASSWORD=zeek", "service zeek", "service zeek"},
		"a switch":            {"X_AUTH=true", "healthy: true", "healthy: true"},
		"one in another":      {"X_TOKEN=horsebattery\nY_TOKEN=horsebatterystaple", "horsebatterystaple horsebattery", "[removed] [removed]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRedactor()
			r.Learn([]byte(tc.learned))
			if got := string(r.Redact([]byte(tc.document))); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// Whatever the document: a variable with a secret, learned from the
// environment, is nowhere in it afterwards, and redacting twice is redacting
// once.
func FuzzRedact(f *testing.F) {
	for _, document := range []string{"", "{", `{"a":["b=c"]}`, "password: x", "-----BEGIN PRIVATE KEY-----", `\"token\":\"`, "a://b:c@d@e/f", `{"Cmd":["--token","x"]}`} {
		f.Add(document)
	}
	const secret = "correct-horse-battery"
	f.Fuzz(func(t *testing.T, document string) {
		r := NewRedactor()
		r.LearnEnvironment([]string{"GRAFANA_PASSWORD=" + secret})
		once := r.Redact([]byte(document + secret + document))
		if strings.Contains(string(once), secret) {
			t.Errorf("the secret is in %q", once)
		}
		if twice := r.Redact(once); string(twice) != string(once) {
			t.Errorf("redacted twice:\n%q\n%q", once, twice)
		}
	})
}

// What reporter.log quotes of the traffic is not in a bundle; what Zeek says is.
func TestWhatReporterLogQuotes(t *testing.T) {
	for name, tc := range map[string]struct{ log, want string }{
		"a string":              {`{"ts":1.5,"level":"Reporter::WARNING","message":"unknown command \"LOGIN hans horse\" ignored","location":"/zeek/main.zeek, line 3"}`, `{"level":"Reporter::WARNING","location":"/zeek/main.zeek, line 3","message":"unknown command \"[removed]\" ignored","ts":1.5}`},
		"a string that was cut": {`{"message":"bad value \"LOGIN hans ho"}`, `{"message":"bad value \"[removed]\""}`},
		"a record":              {`{"message":"no such index [id=[orig_h=192.0.2.1, resp_p=80/tcp], user=hans, uri=/horse] in table"}`, `{"message":"no such index [removed] in table"}`},
		"a record that was cut": {`{"message":"no such index [id=[orig_h=192.0.2.1], user=ho"}`, `{"message":"no such index [removed]"}`},
		"a value":               {`{"message":"bad conversion to count (horse)"}`, `{"message":"bad conversion to count ([removed])"}`},
		"an expression":         {`{"message":"field value missing (HTTP::c$http$user_agent)"}`, `{"message":"field value missing (HTTP::c$http$user_agent)"}`},
		"a query":               {`{"message":"cannot parse /a?sid=horse&x=1 fully"}`, `{"message":"cannot parse /a?sid=[removed] fully"}`},
		"columns":               {"#fields\tts\tlevel\tmessage\n1.5\tReporter::ERROR\tbad \"horse\"\t(empty)\n", "#fields\tts\tlevel\tmessage\n1.5\tReporter::ERROR\tbad \"[removed]\"\t([removed])\n"},
		"other logs":            {"== stats.log\n{\"mem\":1.50,\"peer\":\"zeek\"}\n", "== stats.log\n{\"mem\":1.50,\"peer\":\"zeek\"}\n"},
	} {
		if got := string(quiet([]byte(tc.log))); got != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tc.want)
		}
	}
}
