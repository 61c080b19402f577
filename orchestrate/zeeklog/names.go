package zeeklog

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// names are what the identifiers of one process name. Zeek draws identifiers of
// connections ("C…") and files ("F…") anew in every process, and any log may
// quote them, in columns of their own, in sets and vectors, and in text. Of two
// processes they are compared by these names:
//
//	tcp 10.0.0.1:1025 → 10.0.0.2:80         the first connection of these ends
//	tcp 10.0.0.1:1025 → 10.0.0.2:80 #2      the second one to start
//	file of 10.0.0.1:1025 10.0.0.2:80 HTTP text/html 41ba0735e645   by what is in it
//
// Files have no numbers by their start: a live process may give packets that it
// read at once one time, and then it does not tell which was first.
type names map[string]string

// identified is a connection or file on its way to a name.
type identified struct {
	id, group string
	at        float64 // seconds, of its start
}

// names of the identifiers in all logs.
func (l Logs) names() names {
	n := names{}
	number(n, l.connections())
	number(n, l.files())
	return n
}

// connections are those of conn.log, and those that only other logs know.
func (l Logs) connections() []identified {
	var list []identified
	seen := map[string]bool{}
	for _, log := range logNames(l, nil) {
		if _, skip := process[log]; skip {
			continue
		}
		for _, r := range l[log] {
			if uid, ok := r["uid"].(string); ok && !seen[uid] && r["id.orig_h"] != nil {
				seen[uid] = true
				list = append(list, identified{id: uid, group: endpoints(r), at: r.seconds("ts")})
			}
		}
	}
	return list
}

// files are those of files.log, by their connection and content.
func (l Logs) files() []identified {
	var list []identified
	seen := map[string]bool{}
	for _, r := range l["files"] {
		fuid, ok := r["fuid"].(string)
		if !ok || seen[fuid] {
			continue
		}
		seen[fuid] = true
		list = append(list, identified{
			id: fuid, at: r.seconds("ts"),
			group: strings.Join([]string{"file of", fileOwner(r), r.text("source"), r.text("mime_type"), fileContent(r)}, " "),
		})
	}
	return list
}

// fileOwner is the connection that a file came over, or the hosts where the line
// tells no more.
func fileOwner(r Record) string {
	if r["id.orig_h"] != nil {
		return connKey(r)
	}
	return r.text("tx_hosts") + " → " + r.text("rx_hosts")
}

// fileContent is the begin of a file's hash, or its size where Zeek made none.
func fileContent(r Record) string {
	const enough = 12
	hash := cmp.Or(r.text("sha256"), r.text("sha1"), r.text("md5"), r.text("seen_bytes")+" bytes")
	return hash[:min(len(hash), enough)]
}

// number counts the members of every group in the order of their start, or that
// of the log: connections of the same ends are logged one after the other.
func number(n names, list []identified) {
	slices.SortStableFunc(list, func(a, b identified) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.at, b.at))
	})
	count := 0
	for i, x := range list {
		if count++; i == 0 || list[i-1].group != x.group {
			count = 1
		}
		if n[x.id] = x.group; count > 1 {
			n[x.id] = fmt.Sprintf("%s #%d", x.group, count)
		}
	}
}

// seconds returns a time or interval, 0 where it is unset or written otherwise.
func (r Record) seconds(field string) float64 {
	v, _ := numeric(r[field])
	return v
}

// shortest is how long an identifier is at least: 96 bits in base 62 have 16 or
// 17 digits, seldom fewer.
const shortest = 12

// identifier finds what may be one, or any other word.
var identifier = regexp.MustCompile(`[0-9A-Za-z]+`)

// texts are the logs whose free text quotes identifiers, of which a log of their
// own may be missing.
var texts = map[string]bool{"weird": true, "notice": true, "analyzer": true, "intel": true, "signatures": true}

// rename replaces the identifiers in a text. One that no log explains becomes a
// mere letter, if it is all there is of the text or of a log whose texts quote
// such.
func (n names) rename(log, text string) string {
	if len(text) < shortest {
		return text
	}
	return identifier.ReplaceAllStringFunc(text, func(word string) string {
		if name, ok := n[word]; ok {
			return name
		}
		if likeIdentifier(word) && (word == text || texts[log]) {
			return word[:1] + "?"
		}
		return word
	})
}

// likeIdentifier tells what Zeek drew from words that people made: it mixes cases
// and digits. One without any digit (1 of 20) changes its case often.
func likeIdentifier(word string) bool {
	if len(word) < shortest || len(word) > 20 || word[0] != 'C' && word[0] != 'F' {
		return false
	}
	lower, upper := strings.ContainsFunc(word[1:], isLower), strings.ContainsFunc(word[1:], isUpper)
	if strings.ContainsAny(word, "0123456789") {
		return lower && upper
	}
	const often = 5
	changes := 0
	for i := 2; i < len(word); i++ {
		if isLower(rune(word[i])) != isLower(rune(word[i-1])) {
			changes++
		}
	}
	return changes >= often
}

func isLower(r rune) bool { return r >= 'a' && r <= 'z' }
func isUpper(r rune) bool { return r >= 'A' && r <= 'Z' }
