package pcapfile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zeekdemo/zeekdemo/forward"
	"github.com/zeekdemo/zeekdemo/testdata/testenv"
)

// TestInterfacesAreBounded: a small compressed file of millions of interfaces takes no
// memory, and the damage is named.
func TestInterfacesAreBounded(t *testing.T) {
	name, size := interfaceBomb(t)
	heap, rss := growth(t, func() {
		r, err := Open(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := readAll(r); err == nil || !strings.Contains(err.Error(), "more than 65536 interfaces in a section") {
			t.Errorf("got %v", err)
		}
	})
	if heap > memoryLimit || rss > memoryLimit {
		t.Errorf("%d bytes of file: heap grew by %d, resident memory by %d", size, heap, rss)
	}
}

// interfaceBomb writes two million interfaces, compressed, and returns the size of the
// file as well.
func interfaceBomb(t *testing.T) (name string, size int) {
	t.Helper()
	n := ng{binary.LittleEndian}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	blocks := bytes.Repeat(n.iface(1, 0, n.option(1, make([]byte, 40)...)), 100_000)
	_, err := w.Write(n.section())
	for range 20 {
		if err == nil {
			_, err = w.Write(blocks)
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "bomb.pcapng.gz", bomb.Bytes()), bomb.Len()
}

// TestAsManyInterfacesAsThereMayBe are read, in every section anew.
func TestAsManyInterfacesAsThereMayBe(t *testing.T) {
	n := ng{binary.LittleEndian}
	section := bytes.Join([][]byte{n.section(), bytes.Repeat(n.iface(1, 0), maxInterfaces), n.enhanced(maxInterfaces-1, 7, packet(60, 1), 60)}, nil)
	got, err := readBytes(t, bytes.Repeat(section, 2))
	if err != nil || len(got) != 2 {
		t.Errorf("%d frames: %v", len(got), err)
	}
}

// TestOptionsAreBounded: what no writer makes is damage, and takes no memory.
func TestOptionsAreBounded(t *testing.T) {
	n := ng{binary.LittleEndian}
	large := make([]byte, maxBlock)
	for what, block := range map[string][]byte{
		"interface description block": n.iface(1, 0, large),
		"packet block":                n.enhanced(0, 7, packet(60, 1), 60, large),
	} {
		_, err := readBytes(t, bytes.Join([][]byte{n.section(), n.iface(1, 0), block}, nil))
		if err == nil || !strings.Contains(err.Error(), what+" with the implausible length") {
			t.Errorf("got %v", err)
		}
	}
}

// TestSecretsAreReadAsCapinfosDoes: a capture with decryption secrets has the packets
// that it had.
func TestSecretsAreReadAsCapinfosDoes(t *testing.T) {
	editcap, capinfos := testenv.NeedTool(t, "editcap"), testenv.NeedTool(t, "capinfos")
	in := writeFile(t, "a.pcap", newPcapSpec().file(packet(60, 1), packet(61, 2), packet(62, 3)))
	keys := writeFile(t, "keys", []byte("CLIENT_RANDOM 00 00\n"))
	out := filepath.Join(t.TempDir(), "out.pcapng")
	if said, err := exec.Command(editcap, "--inject-secrets", "tls,"+keys, in, out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	r, err := Open(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := readAll(r)
	said, capErr := exec.Command(capinfos, "-cM", out).CombinedOutput()
	if err != nil || capErr != nil || !strings.Contains(string(said), fmt.Sprintf("Number of packets:   %d", len(got))) {
		t.Errorf("%d frames: %v; capinfos: %v, %s", len(got), err, capErr, said)
	}
}

// TestEveryCaptureTakesLittleMemory to its end or its damage.
func TestEveryCaptureTakesLittleMemory(t *testing.T) {
	names := sharedCaptures(t)
	field, err := filepath.Glob(filepath.Join(testenv.Shared(t, "field"), "*.pcap*"))
	if err != nil || len(field) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, name := range append(names, field...) {
		heap, rss := growth(t, func() { readQuietly(t, name) })
		if heap > memoryLimit || rss > memoryLimit {
			t.Errorf("%s: heap grew by %d, resident memory by %d bytes", name, heap, rss)
		}
	}
}

// readQuietly reads a capture and keeps nothing.
func readQuietly(t *testing.T, name string) {
	t.Helper()
	r, err := Open(name, nil)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	defer r.Close()
	for f := (forward.Frame{}); err == nil; {
		err = r.Next(&f)
	}
}
