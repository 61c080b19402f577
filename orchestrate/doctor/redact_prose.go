package doctor

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// prosePatterns are those of secrets in sentences.
type prosePatterns struct {
	// A secret's noun and whose it is, then what is in quotes, or a word. Groups: the
	// linking words and signs, what is quoted, the word.
	after *regexp.Regexp
	// A word, then what it is called. Group: the word.
	before *regexp.Regexp
	// USER:PASSWORD@HOST without a scheme. Groups: the user, the password, the host.
	login *regexp.Regexp
}

func compileProse() prosePatterns {
	const noun = `(?:pass(?:words?|wd|phrase|code)|secrets?|tokens?|credentials?|cookies?|(?:api|access|private|secret|licen[cs]e|signing)[ _-]keys?)`
	return prosePatterns{
		after: regexp.MustCompile(`(?i)\b` + noun + `\b(?:\s+(?:of|for)\s+(?:(?:the|user)\s+)*[\w@.-]+)?((?:\s*[:=]|\s+(?:is|was|are|were|be|now|still|to|set|changed|reads|equals|from))*\s*)` +
			"(?:[\"'`]([^\"'`\r\n]+)[\"'`]|([^\\s\"'`]+))"),
		before: regexp.MustCompile(`(?i)(?:^|\s)["'(]?([^\s"'()]+)["')]?\s+as\s+(?:(?:the|a|an|its|their|your|my)\s+)?(?:\w+\s+)?` + noun + `\b`),
		login:  regexp.MustCompile(`(?:^|[\s"'(=])([\w.+-]+):([^\s:/@"']{4,})@([\w.-]+)`),
	}
}

// sentences are the patterns, which never change.
var sentences = compileProse()

// prose removes what sentences say of secrets: "password is horse", "token abc123
// has expired", "passphrase 'correct horse'". A word that follows without a link
// must look like a secret, and only such a one is looked for elsewhere: most that
// follow are plain English.
func (r *Redactor) prose(line string, learn bool) string {
	line = r.replace(sentences.after, line, func(group func(int) string) int {
		link, quoted, word := strings.TrimSpace(group(1)), group(2), plainWord(group(3))
		switch {
		case quoted != "":
			r.rememberLikely(quoted, learn)
			return 2
		case random(word) || link != "" && !saysHow(word):
			r.rememberLikely(word, learn)
			return 3
		}
		return -1
	})
	line = r.replace(sentences.before, line, func(group func(int) string) int {
		if word := plainWord(group(1)); random(word) {
			r.rememberLikely(word, learn)
			return 1
		}
		return -1
	})
	return r.replace(sentences.login, line, func(group func(int) string) int {
		if slices.Contains([]string{"sha256", "sha512"}, group(3)) || slices.Contains([]string{"mailto", "sip", "sips"}, group(1)) {
			return -1 // an image by its digest, an address
		}
		r.rememberLikely(group(2), learn)
		return 2
	})
}

// replace removes of every match the group that pick names; none if that is
// negative. What is removed already stays so.
func (r *Redactor) replace(pattern *regexp.Regexp, line string, pick func(group func(int) string) int) string {
	var out strings.Builder
	kept := 0
	for at := 0; at < len(line); {
		m := pattern.FindStringSubmatchIndex(line[at:])
		if m == nil {
			break
		}
		group := func(n int) string {
			if m[2*n] < 0 {
				return ""
			}
			return line[at+m[2*n] : at+m[2*n+1]]
		}
		n := -1
		if !strings.Contains(group(0), removed) {
			n = pick(group)
		}
		if n < 0 {
			at += step(m, line[at:])
			continue
		}
		text := group(n)
		start := at + m[2*n]
		end := start + len(plainWord(text))
		out.WriteString(line[kept:start] + removed)
		kept, at = end, end
	}
	return out.String() + line[kept:]
}

// step is how far to go on after a match that counts for nothing: behind its first
// word, for what follows may begin another one.
func step(m []int, rest string) int {
	if n := strings.IndexFunc(rest[m[0]+1:], func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }); n >= 0 {
		return m[0] + 1 + max(n, 1)
	}
	return len(rest)
}

// plainWord is a word without the punctuation at its end.
func plainWord(word string) string { return strings.TrimRight(word, ".,;:)]}>") }

// rememberLikely keeps a value that sentences tell, if it is no plain word. A sign
// at its end may be the sentence's.
func (r *Redactor) rememberLikely(value string, learn bool) {
	for _, v := range []string{value, strings.TrimRight(value, "!?")} {
		if random(v) {
			r.remember(v, learn)
		}
	}
}

// random reports whether a word looks like a secret: letters with digits or signs
// in it, and neither an address nor a name of machines or files.
func random(word string) bool {
	if len(word) < 6 || strings.ContainsAny(word, "/") || strings.HasPrefix(word, "-") || strings.Contains(word, removed) {
		return false
	}
	letters := strings.ContainsFunc(word, unicode.IsLetter)
	digits := strings.ContainsFunc(word, unicode.IsDigit)
	signs := strings.ContainsAny(word, "!#$%^&*+~|?")
	return letters && (digits || signs) && !isNumbered.MatchString(word)
}

// isNumbered matches names with a number, such as those of containers, networks
// and versions, and addresses, which are no secrets.
var isNumbered = regexp.MustCompile(`(?i)^(?:[a-z]+(?:[-_.][a-z]+)*[-_.]?\d{1,4}|v?\d+(?:\.\d+)+\S*|[0-9a-f:.]*:[0-9a-f:.]*|\d+[a-z]{1,3}|(?:sha|md)\d+:\S*)$`)

// saysHow reports whether a word after "password is" or "token:" says how it is
// and not what.
func saysHow(word string) bool {
	switch strings.ToLower(word) {
	case "", "a", "an", "the", "not", "no", "and", "or", "in", "on", "at", "by", "for", "with", "from", "as", "too", "that", "this", "only", "also", "still", "now", "being", "to", "of",
		"set", "unset", "empty", "missing", "required", "optional", "mandatory", "needed", "wanted", "expected", "given", "used", "known", "unknown", "found", "present", "absent", "there", "here",
		"wrong", "right", "bad", "good", "correct", "incorrect", "invalid", "valid", "weak", "strong", "short", "long", "expired", "expiring", "revoked", "rejected", "refused", "accepted", "denied", "ignored",
		"default", "changed", "reset", "stored", "saved", "removed", "deleted", "created", "encrypted", "hashed", "hidden", "disabled", "enabled", "malformed", "unexpected", "true", "false", "nil", "null", "none",
		"never", "always", "already", "read", "written", "sent", "taken", "kept", "logged", "shown", "printed", "generated", "longer", "shorter", "hard-coded", "must", "may", "will", "should", "cannot", "available", "unavailable":
		return true
	}
	return strings.HasPrefix(word, "[") || strings.HasPrefix(word, "<") || strings.HasPrefix(word, "$")
}

// jsonLine redacts a line that is a JSON object of its own, as logs have them. A
// line in which nothing was found stays as it was written.
func (r *Redactor) jsonLine(line string, learn bool) (string, bool) {
	trimmed := strings.TrimSpace(line)
	if !strings.HasPrefix(trimmed, "{") {
		return "", false
	}
	value, ok := decode([]byte(trimmed))
	if !ok {
		return "", false
	}
	before, err1 := encode(value, "")
	after, err2 := encode(r.value(value, learn), "")
	switch {
	case err1 != nil || err2 != nil:
		return "", false
	case before == after:
		return line, true
	}
	return strings.Replace(line, trimmed, strings.TrimRight(after, "\n"), 1), true
}

// quiet takes out of logs such as Zeek's reporter.log, as JSON or as columns, what
// their messages quote of the traffic: strings, records and values. What Zeek says
// itself stays.
func quiet(log []byte) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(log)) {
		out.WriteString(quietLine(line))
	}
	return []byte(out.String())
}

func quietLine(line string) string {
	text := strings.TrimRight(line, "\r\n")
	ending := line[len(text):]
	if strings.HasPrefix(text, "#") || strings.HasPrefix(text, "== ") {
		return line
	}
	value, _ := decode([]byte(text))
	entry, ok := value.(map[string]any)
	if !ok {
		return unquoted(text) + ending
	}
	for name, value := range entry {
		if said, ok := value.(string); ok && name != "location" && name != "level" {
			entry[name] = unquoted(said)
		}
	}
	clean, err := encode(entry, "")
	if err != nil {
		return removed + ending
	}
	return strings.TrimRight(clean, "\n") + ending
}

var (
	quotation = regexp.MustCompile(`"(?:[^"\\]|\\.)*("|$)`)
	bracketed = regexp.MustCompile(`\(([^()]*)\)`)
	equation  = regexp.MustCompile(`(\$?\b[\w$]+)=[^\s\[]\S*`)
)

// unquoted is a message without what it quotes.
func unquoted(message string) string {
	message = quotation.ReplaceAllString(message, `"`+removed+`"`)
	message = withoutRecords(message)
	message = bracketed.ReplaceAllStringFunc(message, func(part string) string {
		if strings.Contains(part, "$") || strings.Contains(part, "::") { // a script's expression
			return part
		}
		return "(" + removed + ")"
	})
	return equation.ReplaceAllString(message, "${1}="+removed)
}

// withoutRecords removes what is in square brackets, as Zeek prints records and
// sets; they nest, and a message may be cut within one.
func withoutRecords(message string) string {
	message = strings.ReplaceAll(message, removed, "\x00")
	var out strings.Builder
	depth := 0
	for _, c := range message {
		switch {
		case c == '[':
			if depth++; depth == 1 {
				out.WriteString(removed)
			}
		case c == ']' && depth > 0:
			depth--
		case depth == 0:
			out.WriteRune(c)
		}
	}
	return strings.ReplaceAll(out.String(), "\x00", removed)
}
