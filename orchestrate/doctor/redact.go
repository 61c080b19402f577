package doctor

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

// removed stands where a secret was.
const removed = "[removed]"

// Redactor takes secrets out of what is written into a bundle, in two ways:
//
//   - By where they are: values of names that sound like a secret (in JSON, in
//     an environment, on a command line, in plain text), what sentences say of
//     passwords and their like, logins in URLs, authorization headers, private
//     keys, and tokens by their known forms.
//   - By what they are: a value that was found so is taken out wherever else it
//     occurs, in its usual encodings too. Read all documents with [Redactor.Learn]
//     before the first is redacted.
//
// Values shorter than shortest are only taken out by where they are, for they
// occur in other words.
type Redactor struct {
	secrets map[string]bool
}

// shortest is how long a value must be to be looked for everywhere, in bytes;
// words is up to which length it must not be a part of a longer word.
const (
	shortest = 4
	words    = 8
)

// passes bounds how often a document is looked through: each one but the last has
// taken something out.
const passes = 32

// NewRedactor returns one that has learned nothing yet.
func NewRedactor() *Redactor { return &Redactor{secrets: map[string]bool{}} }

// Learn reads a document and remembers its secrets.
func (r *Redactor) Learn(document []byte) { r.redact(document, true) }

// LearnEnvironment reads variables of the form NAME=VALUE.
func (r *Redactor) LearnEnvironment(environ []string) {
	for _, e := range environ {
		r.text(e, true)
	}
}

// Redact returns a document without secrets. JSON stays JSON. What is taken out may
// bring together what then reads as a secret, so it goes on until nothing changes.
func (r *Redactor) Redact(document []byte) []byte {
	for range passes {
		clean := r.forget(r.redact(document, false))
		if bytes.Equal(clean, document) {
			break
		}
		document = clean
	}
	return document
}

// redact takes secrets out by where they are.
func (r *Redactor) redact(document []byte, learn bool) []byte {
	if value, ok := decode(document); ok {
		if clean, err := encode(r.value(value, learn), "  "); err == nil {
			return []byte(clean)
		}
	}
	var out strings.Builder
	for line := range strings.Lines(r.blocks(string(document), learn)) {
		out.WriteString(r.text(line, learn))
	}
	return []byte(out.String())
}

// decode reads a document that is one JSON object or array.
func decode(document []byte) (value any, ok bool) {
	first := bytes.TrimSpace(document)
	if len(first) == 0 || first[0] != '{' && first[0] != '[' {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	return value, decoder.Decode(&value) == nil && !decoder.More()
}

func encode(value any, indent string) (string, error) {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	err := encoder.Encode(value)
	return out.String(), err
}

// value walks through JSON.
func (r *Redactor) value(v any, learn bool) any {
	switch v := v.(type) {
	case map[string]any:
		return r.object(v, learn)
	case []any:
		return r.array(v, learn)
	case string:
		if name, secret, found := strings.Cut(v, "="); found && environmentName(name) && secretName(name) && secret != "" {
			r.remember(secret, learn) // a variable, of several lines maybe
			return name + "=" + removed
		}
		var out strings.Builder
		for line := range strings.Lines(r.blocks(v, learn)) {
			out.WriteString(r.text(line, learn))
		}
		return out.String()
	}
	return v
}

func (r *Redactor) object(object map[string]any, learn bool) map[string]any {
	out := make(map[string]any, len(object))
	for name, v := range object {
		switch {
		case secretName(name):
			out[name] = r.hide(v, learn)
		default:
			out[name] = r.value(v, learn)
		}
	}
	for _, name := range []string{"name", "Name", "key", "Key"} { // {"name": "X_TOKEN", "value": "..."}
		if text, ok := object[name].(string); ok && secretName(text) {
			for _, value := range []string{"value", "Value"} {
				if v, ok := object[value]; ok {
					out[value] = r.hide(v, learn)
				}
			}
		}
	}
	return out
}

// array also knows command lines, on which the value follows its name.
func (r *Redactor) array(array []any, learn bool) []any {
	out := make([]any, len(array))
	for i, v := range array {
		out[i] = r.value(v, learn)
		if i == 0 {
			continue
		}
		name, _ := array[i-1].(string)
		login, _ := v.(string)
		switch {
		case strings.HasPrefix(name, "-") && !strings.Contains(name, "=") && secretName(name):
			out[i] = r.hide(v, learn)
		case slices.Contains([]string{"-u", "--user", "--proxy-user"}, name) && strings.Contains(login, ":"):
			r.rememberLogin(login, learn)
			out[i] = removed
		}
	}
	return out
}

// hide removes everything below a name that sounds like a secret. What is empty
// or a mere yes or no is none, and tells whether one was set.
func (r *Redactor) hide(v any, learn bool) any {
	switch v := v.(type) {
	case nil, bool:
		return v
	case string:
		if v == "" {
			return v
		}
		r.remember(v, learn)
		return removed
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, inner := range v {
			out[name] = r.hide(inner, learn)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = r.hide(inner, learn)
		}
		return out
	}
	return removed
}

// secretParts make a name that contains them one of a secret; secretWords do so
// as a word of their own.
func secretParts() []string {
	return []string{"password", "passwd", "passphrase", "secret", "token", "credential", "apikey", "accesskey", "privatekey", "authorization", "cookie", "webhook"}
}

func secretWords() []string {
	return []string{"pass", "pw", "pwd", "auth", "auths", "bearer", "dsn", "key", "creds", "cred", "license", "sas", "signature"}
}

// secretName reports whether a name sounds like that of a secret: of a field, a
// variable, a label or an option.
func secretName(name string) bool {
	flat := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
	if flat == "sandboxkey" { // a file's name, in the engine's description of a container
		return false
	}
	for _, part := range secretParts() {
		if strings.Contains(flat, part) {
			return true
		}
	}
	parts := nameWords(name)
	return len(parts) > 1 && slices.ContainsFunc(parts, func(w string) bool { return slices.Contains(secretWords(), w) }) ||
		len(parts) == 1 && parts[0] != "key" && slices.Contains(secretWords(), parts[0])
}

// nameWords splits GF_AUTH_KEY, grafana.auth-key and grafanaAuthKey into words.
func nameWords(name string) []string {
	var spaced strings.Builder
	before := ' '
	for _, c := range name {
		switch {
		case !unicode.IsLetter(c) && !unicode.IsDigit(c):
			c = ' '
		case unicode.IsUpper(c) && unicode.IsLower(before):
			spaced.WriteByte(' ')
		}
		spaced.WriteRune(unicode.ToLower(c))
		before = c
	}
	return strings.Fields(spaced.String())
}

// patterns are those of secrets in plain text.
type patterns struct {
	block, login, user, header, scheme, form, name, quoted, word *regexp.Regexp
}

func compilePatterns() patterns {
	return patterns{
		block: regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|$)`),
		// The user information of a URL, up to the last @ of the host part.
		login: regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)([^/?#\s"'<>]+)@`),
		// The login of curl and others on a command line.
		user: regexp.MustCompile(`(?:^|\s)(?:-u|--user|--proxy-user)[= ]["']?([^\s:"']+:[^\s"']+)`),
		// A header and all that follows it in its line or string.
		header: regexp.MustCompile(`(?i)\b((?:proxy-)?authorization|x-registry-(?:auth|config)|x-api-key|(?:set-)?cookie)(["']?\s*[:=]\s*["'\[]*)([^"'\r\n]+)`),
		scheme: regexp.MustCompile(`(?i)\b(bearer|basic)\s+([A-Za-z0-9+/_.~-]{8,}=*)`),
		// JSON web tokens, and what GitHub, GitLab, Grafana, Slack, Amazon, Docker,
		// npm, Google, Vault and Stripe hand out.
		form: regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|\b(?:gh[pousr]_|github_pat_|glpat-|glsa_|glc_|xox[abeprs]-|dckr_pat_|npm_|hvs\.|AIza|[rs]k_live_|xapp-)[\w-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`),
		// NAME=, NAME: and "NAME": before a value, and the forms of a value.
		name:   regexp.MustCompile(`([A-Za-z][\w.-]*)\\?["']?\s*[:=]\s*`),
		quoted: regexp.MustCompile(`^(\\"(?:[^"\\]|\\[^"])*\\"|"(?:[^"\\]|\\.)*"|'[^']*')`),
		word:   regexp.MustCompile(`^[^\s,;&"'<>]+`),
	}
}

// known are the patterns, which never change.
var known = compilePatterns()

// blocks removes what stretches over several lines.
func (r *Redactor) blocks(text string, _ bool) string {
	return known.block.ReplaceAllString(text, removed)
}

// text removes secrets from one line.
func (r *Redactor) text(line string, learn bool) string {
	if clean, ok := r.jsonLine(line, learn); ok {
		return clean
	}
	if name, value, found := strings.Cut(strings.TrimRight(line, "\r\n"), "="); found && environmentName(name) {
		switch { // a variable: its value may hold anything, blanks too
		case secretName(name) && value != "":
			r.remember(value, learn)
			return name + "=" + removed + line[len(name)+1+len(value):]
		case strings.Contains(strings.ToLower(name), "proxy"):
			line = r.proxy(line, learn)
		}
	}
	line = r.each(known.login, line, 2, learn)
	line = r.each(known.user, line, 1, learn)
	line = r.each(known.header, line, 3, learn)
	line = r.each(known.scheme, line, 2, learn)
	line = r.each(known.form, line, 0, learn)
	line = r.assignments(line, learn)
	return r.prose(line, learn)
}

var environment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func environmentName(name string) bool { return environment.MatchString(name) }

// proxy removes a login even where its password has a character that a URL may
// not have.
func (r *Redactor) proxy(line string, learn bool) string {
	start, end := strings.Index(line, "://"), strings.LastIndex(line, "@")
	if start < 0 || end < start+3 {
		return line
	}
	r.rememberLogin(line[start+3:end], learn)
	return line[:start+3] + removed + line[end:]
}

// each removes one group of every match; group 0 is all of it.
func (r *Redactor) each(pattern *regexp.Regexp, line string, group int, learn bool) string {
	var out strings.Builder
	kept := 0
	for _, m := range pattern.FindAllStringSubmatchIndex(line, -1) {
		start, end := m[2*group], m[2*group+1]
		secret := line[start:end]
		if strings.Contains(secret, removed) {
			continue
		}
		if pattern == known.login || pattern == known.user {
			r.rememberLogin(secret, learn)
		} else {
			r.remember(secret, learn)
		}
		out.WriteString(line[kept:start] + removed)
		kept = end
	}
	return out.String() + line[kept:]
}

// assignments removes the values of names that sound like a secret: up to the
// end of the line where the name begins it, as in a configuration, else the next
// word or what is in quotes.
func (r *Redactor) assignments(line string, learn bool) string {
	var out strings.Builder
	kept := 0
	for _, m := range known.name.FindAllStringSubmatchIndex(line, -1) {
		if m[0] < kept || !secretName(line[m[2]:m[3]]) {
			continue
		}
		value := known.quoted.FindString(line[m[1]:])
		if value == "" && strings.Trim(line[:m[2]], " \t-\"'") == "" {
			value = strings.TrimRight(line[m[1]:], " \r\n")
		} else if value == "" {
			value = known.word.FindString(line[m[1]:])
		}
		bare := strings.Trim(value, `\"'`)
		if bare == "" || strings.HasPrefix(bare, removed) || harmless(bare) {
			continue
		}
		r.remember(bare, learn)
		quote := value[:strings.Index(value, bare)]
		out.WriteString(line[kept:m[1]] + quote + removed + quote)
		kept = m[1] + len(value)
	}
	return out.String() + line[kept:]
}

// harmless reports whether a value is no secret whatever its name.
func harmless(value string) bool {
	switch strings.ToLower(value) {
	case "true", "false", "none", "null", "nil", "yes", "no", "on", "off", "{", "[", "|", ">", "{}", "[]":
		return true
	}
	return false
}

// remember keeps a value to be taken out everywhere.
func (r *Redactor) remember(secret string, learn bool) {
	if !learn {
		return
	}
	secret = strings.TrimSpace(secret)
	if number, err := strconv.ParseInt(secret, 10, 64); err == nil && number < 1e6 {
		return // it would be taken out of every counter
	}
	if len(secret) < shortest || harmless(secret) || secret == removed || secret == orchestrate.DefaultGrafanaPassword {
		return
	}
	r.secrets[secret] = true
	if strings.Contains(secret, "\n") { // elsewhere its lines may be apart
		for part := range strings.Lines(secret) {
			r.remember(part, learn)
		}
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		if plain, err := encoding.DecodeString(secret); err == nil && printable(plain) {
			if _, password, found := strings.Cut(string(plain), ":"); found { // as Docker keeps a login
				r.remember(password, learn)
			}
		}
	}
}

// rememberLogin keeps the password of USER:PASSWORD, as it is and decoded.
func (r *Redactor) rememberLogin(login string, learn bool) {
	user, password, found := strings.Cut(login, ":")
	if !found {
		password = user // a token
	}
	r.remember(password, learn)
	if plain, err := url.PathUnescape(password); err == nil {
		r.remember(plain, learn)
	}
}

func printable(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// forget takes out every value that was learned, in its usual encodings.
func (r *Redactor) forget(document []byte) []byte {
	var all []string
	for secret := range r.secrets {
		all = append(all, forms(secret)...)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	text := string(document)
	for _, form := range slices.Compact(all) {
		text = takeOut(text, form)
	}
	return []byte(text)
}

// forms are how a secret may be written. In base64 it may be a part of more, such
// as USER:PASSWORD; it then begins at one of three places of the groups of three
// bytes, of which the first and the last hold other bytes too.
func forms(secret string) []string {
	marshalled, _ := json.Marshal(secret)
	quoted := strings.TrimSuffix(strings.TrimPrefix(string(marshalled), `"`), `"`)
	encoded, err := encode(secret, "") // without \u0026 for &
	if err != nil {
		encoded = secret
	}
	list := []string{secret, quoted, strings.Trim(encoded, "\"\n"), url.QueryEscape(secret), url.PathEscape(secret),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.URLEncoding.EncodeToString([]byte(secret))}
	for before := range 3 {
		inner := secret[min((3-before)%3, len(secret)):]
		inner = inner[:len(inner)/3*3]
		if len(inner) >= words {
			list = append(list, base64.StdEncoding.EncodeToString([]byte(inner)), base64.URLEncoding.EncodeToString([]byte(inner)))
		}
	}
	return list
}

// takeOut removes a form of a secret; a short one only as a word of its own.
func takeOut(text, form string) string {
	if len(form) > words {
		return strings.ReplaceAll(text, form, removed)
	}
	var out strings.Builder
	for {
		i := strings.Index(text, form)
		if i < 0 {
			break
		}
		end := i + len(form)
		whole := (i == 0 || !wordByte(text[i-1])) && (end == len(text) || !wordByte(text[end]))
		out.WriteString(text[:i])
		if whole {
			out.WriteString(removed)
		} else {
			out.WriteString(form)
		}
		text = text[end:]
	}
	return out.String() + text
}

func wordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}
