package assets_test

import (
	"os"
	"testing"

	"github.com/zeekdemo/zeekdemo/assets/internal/boards"
)

// The dashboards of the logs are written by a program; TestComposeHoldsTheFiles,
// which comes later, takes them from their files.
func TestBoardsAreWritten(t *testing.T) {
	files, err := boards.Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		path := "stack/grafana/dashboards/" + name
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != string(want) {
			t.Errorf("%s is out of date (error %v): run go generate ./assets", path, err)
		}
	}
}
