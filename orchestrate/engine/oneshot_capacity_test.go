package engine

import (
	"net/http"
	"testing"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

func TestCapacityOfTheEnginesMachine(t *testing.T) {
	docker, e := newFakeDocker(t)
	docker.json("GET /info", http.StatusOK, `{"NCPU":8,"MemTotal":16777216000}`)
	if got, err := e.Capacity(t.Context()); err != nil || got != (orchestrate.Capacity{CPUs: 8, Memory: 16777216000}) {
		t.Errorf("%+v, %v", got, err)
	}
	docker, e = newFakeDocker(t)
	docker.json("GET /info", http.StatusInternalServerError, `{"message":"no"}`)
	if got, err := e.Capacity(t.Context()); err == nil || got != (orchestrate.Capacity{}) {
		t.Errorf("%+v, %v", got, err)
	}
}
