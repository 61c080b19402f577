package main

import (
	"path/filepath"
	"testing"

	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// On these captures a Zeek disagrees with itself from process to process: in the
// identifiers of files wherever one is quoted, in the order of sets, and in which
// of many expected data connections it remembers. None of that is a fault of the
// path, however often it is asked.
func TestVerifyWhereZeekIsRandom(t *testing.T) {
	folder := testenv.Shared(t, "pcaps")
	p := verifyTest(t)
	args := []string{"verify", "--pull", "never", "--json"}
	const rounds = 10
	names := []string{"ocsp-revoked.pcap", "pe-files-timestamp.pcap.gz", "krb-kinit.pcap", "ftp-many-port-expected.pcap.gz"}
	for range rounds {
		for _, name := range names {
			args = append(args, filepath.Join(folder, name))
		}
	}
	doc := decodeVerified(t, p.must(t, args...))
	if doc.Verdict != "equal" || len(doc.Captures) != rounds*len(names) {
		t.Errorf("%s after %d captures", doc.Verdict, len(doc.Captures))
	}
	checkProof(t, doc, "direct")
	for _, c := range doc.Captures {
		if c.ByPace != 0 {
			t.Errorf("%s: %d lines changed by pace", c.Capture, c.ByPace)
		}
	}
}
