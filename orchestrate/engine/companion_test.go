package engine

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/zeekdemo/zeekdemo/orchestrate"
)

var (
	testSidecar = orchestrate.SidecarSpec{Sensor: "zeek", Program: "/bin/x", Args: []string{"sidecar"}}
	testHelper  = orchestrate.HelperSpec{Image: image, Script: "cat", Args: []string{"mark"}}
)

// What both kinds have in common keeps them small and sees to it that they go.
func TestCompanionsAreConfined(t *testing.T) {
	for name, o := range map[string]client.ContainerCreateOptions{
		"sidecar": sidecarOptions(testSidecar, "sha256:1"), "helper": helperOptions(testHelper),
	} {
		h, c := o.HostConfig, o.Config
		if !h.AutoRemove || !h.ReadonlyRootfs || !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") ||
			h.Privileged || h.Memory == 0 || h.PidsLimit == nil || *h.PidsLimit == 0 || h.LogConfig.Type != "none" || h.RestartPolicy.Name != container.RestartPolicyDisabled {
			t.Errorf("%s: %+v", name, h)
		}
		if !c.OpenStdin || !c.StdinOnce || !c.AttachStdin || !c.AttachStdout || !c.AttachStderr || c.Tty || !slices.Equal(c.Healthcheck.Test, []string{"NONE"}) {
			t.Errorf("%s: %+v", name, c)
		}
		if !strings.HasPrefix(o.Name, "zeekdemo-"+name+"-") {
			t.Errorf("%s is named %s", name, o.Name)
		}
	}
}

func TestASidecarMayNothing(t *testing.T) {
	o := sidecarOptions(testSidecar, "sha256:1")
	h, c := o.HostConfig, o.Config
	if len(h.CapAdd) != 0 || len(h.SecurityOpt) != 1 || h.NetworkMode != "container:zeek" || h.PidMode != "" || c.User != "65534:65534" {
		t.Errorf("%+v, user %s", h, c.User)
	}
	if want := []mount.Mount{{Type: mount.TypeVolume, Target: "/run/zeekdemo-sidecar"}}; !slices.Equal(h.Mounts, want) {
		t.Errorf("mounts %+v", h.Mounts)
	}
	if c.Image != "sha256:1" || !slices.Equal(c.Entrypoint, []string{orchestrate.SidecarProgram}) || !slices.Equal(c.Cmd, testSidecar.Args) || c.Labels["org.zeekdemo.sidecar"] != "zeek" {
		t.Errorf("%+v", c)
	}
}

func TestAHelperReachesTheMachine(t *testing.T) {
	o := helperOptions(testHelper)
	h, c := o.HostConfig, o.Config
	if h.PidMode != "host" || h.NetworkMode != "host" || h.UTSMode != "host" || h.UsernsMode != "host" || len(h.CapAdd) != 4 || len(h.SecurityOpt) != 3 || h.Tmpfs[orchestrate.HelperFolder] == "" {
		t.Errorf("%+v", h)
	}
	if m := h.Mounts; len(m) != 1 || m[0].Type != mount.TypeBind || m[0].Source != "/run" || m[0].Target != orchestrate.HelperRun || !m[0].BindOptions.NonRecursive {
		t.Errorf("without a program it has mounts %+v", h.Mounts)
	}
	if !slices.Equal(c.Entrypoint, []string{"sh", "-c", "cat", "helper"}) || !slices.Equal(c.Cmd, testHelper.Args) ||
		orchestrate.ParseClient(c.Labels["org.zeekdemo.client"]) != orchestrate.ThisClient() {
		t.Errorf("%+v", c)
	}
	withProgram := testHelper
	withProgram.Program = "/bin/x"
	if mounts := helperOptions(withProgram).HostConfig.Mounts; len(mounts) != 2 || mounts[0].Target != "/run/zeekdemo-sidecar" {
		t.Errorf("with a program it has mounts %+v", mounts)
	}
}

// One is found by its label, as every version wrote it.
func TestCompanionsOfEarlierVersionsAreRecognised(t *testing.T) {
	docker, e := newFakeDocker(t)
	docker.HandleFunc("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch filters := r.URL.Query().Get("filters"); {
		case r.URL.Query().Get("all") != "1":
			t.Error("only running ones are asked for")
		case strings.Contains(filters, `"org.zeekdemo.helper"`):
			_, _ = io.WriteString(w, `[{"Id":"1","Created":5,"State":"running","Labels":{"org.zeekdemo.helper":"elsewhere/12"}},
				{"Id":"2","Created":6,"State":"created","Labels":{"org.zeekdemo.helper":"elsewhere/12/345"}}]`)
		case strings.Contains(filters, `"org.zeekdemo.sidecar"`):
			_, _ = io.WriteString(w, `[{"Id":"3","Created":7,"State":"exited","Labels":{"org.zeekdemo.sidecar":"zeek"}}]`)
		}
	})
	for kind, want := range map[orchestrate.CompanionKind]string{
		orchestrate.HelperKind: "1 elsewhere/12 running, 2 elsewhere/12/345 created, ", orchestrate.SidecarKind: "3 zeek exited, ",
	} {
		list, err := e.Companions(t.Context(), kind)
		got := ""
		for _, c := range list {
			got += c.ID + " " + c.Serves + " " + c.State + ", "
			if c.Kind != kind || c.Created.Unix() < 5 {
				t.Errorf("%+v", c)
			}
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", kind, got, err, want)
		}
	}
}

// What is gone, or is being removed, is removed.
func TestRemoveCompanion(t *testing.T) {
	for status, fails := range map[int]bool{http.StatusNoContent: false, http.StatusNotFound: false, http.StatusConflict: false, http.StatusInternalServerError: true} {
		docker, e := newFakeDocker(t)
		docker.HandleFunc("DELETE /containers/1", func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query(); q.Get("force") != "1" || q.Get("v") != "1" {
				t.Errorf("asked for %s", r.URL.RawQuery)
			}
			w.WriteHeader(status)
		})
		if err := e.RemoveCompanion(t.Context(), "1"); (err != nil) != fails {
			t.Errorf("status %d: %v", status, err)
		}
	}
}

// A helper is made of an image that is here or can be pulled, and of no other.
func TestAHelperNeedsItsImage(t *testing.T) {
	for name, tt := range map[string]struct {
		policy       orchestrate.PullPolicy
		stream, errs string
		hint         string
	}{
		"pulled":      {orchestrate.PullMissing, pulled, "", ""},
		"refused":     {orchestrate.PullMissing, refused, "make a helper container: pull image " + image + ": toomanyrequests: no more today", "see the network"},
		"not allowed": {orchestrate.PullNever, pulled, "make a helper container: no image " + image + " is here", "`zeekdemo up` pulls it"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			docker.json(lookImage, http.StatusNotFound, absent)
			docker.json(pullImage, http.StatusOK, tt.stream)
			docker.json("POST /containers/create", http.StatusCreated, `{"Id":"made"}`)
			spec := testHelper
			spec.Pull = tt.policy
			id, err := e.CreateCompanion(t.Context(), spec)
			if tt.errs == "" {
				if err != nil || id != "made" {
					t.Errorf("made %q, %v", id, err)
				}
				return
			}
			if id != "" || err == nil || err.Error() != tt.errs || !strings.Contains(hintOf(err), tt.hint) || docker.times("POST /containers/create") != 0 {
				t.Errorf("made %q, %v, hint %q", id, err, hintOf(err))
			}
		})
	}
}

// A companion whose program cannot be copied does not stay.
func TestWhatWasMadeOfACompanionIsRemovedWhereItFails(t *testing.T) {
	program := filepath.Join(t.TempDir(), "zeekdemo")
	if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		program string
		status  int // of the engine's answer to copying
		errs    string
	}{
		"copied":         {program, http.StatusOK, ""},
		"no such file":   {program + "s", http.StatusOK, "no such file"},
		"engine refuses": {program, http.StatusInternalServerError, "no space"},
	} {
		t.Run(name, func(t *testing.T) {
			docker, e := newFakeDocker(t)
			docker.json("GET /containers/zeek/json", http.StatusOK, `{"Id":"zeek","Image":"sha256:1"}`)
			docker.HandleFunc("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
				var asked struct{ Image string }
				if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Image != "sha256:1" {
					t.Errorf("made of %q, %v", asked.Image, err)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"Id":"made"}`)
			})
			docker.HandleFunc("PUT /containers/made/archive", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, `{"message":"no space"}`)
			})
			docker.json("DELETE /containers/made", http.StatusNoContent, "")
			spec := testSidecar
			spec.Program = tt.program
			id, err := e.CreateCompanion(t.Context(), spec)
			removed := docker.times("DELETE /containers/made")
			if tt.errs == "" {
				if id != "made" || err != nil || removed != 0 {
					t.Errorf("made %q, %v, removed %d times", id, err, removed)
				}
				return
			}
			if id != "" || err == nil || !strings.Contains(err.Error(), tt.errs) || removed != 1 {
				t.Errorf("made %q, %v, removed %d times", id, err, removed)
			}
		})
	}
}

// otherSpec is of a kind that no engine knows.
type otherSpec struct{ orchestrate.HelperSpec }

func (otherSpec) Kind() orchestrate.CompanionKind { return "other" }

func TestACompanionOfAnotherKind(t *testing.T) {
	_, e := newFakeDocker(t)
	if _, err := e.CreateCompanion(t.Context(), otherSpec{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
