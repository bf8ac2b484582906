package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// layoutVersion changes when a directory written by an older program can no longer be read.
const layoutVersion = 1

// layout names everything inside a lab's directory.
type layout struct{ root string }

func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.root}, parts...)...)
}
func (l layout) pki(name string) string { return l.path("pki", name) }
func (l layout) kubeconfig(who string) string {
	if who == "admin" {
		return l.path("kubeconfig") // the one people use
	}
	return l.path("pki", who+".kubeconfig")
}

// prepare creates the directories. They are 0700: they hold keys, and etcd's socket has no other protection.
func (l layout) prepare() error {
	for _, dir := range []string{l.root, l.path("pki"), l.path("etcd"), l.path("registry"), l.path("logs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create %s: %w", dir, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return &failure{exitUnusable, fmt.Errorf("make %s private: %w", dir, err),
				"use a directory of your own"}
		}
	}
	return nil
}

// lock keeps a second control plane off the directory. The kernel drops the lock when this process ends, however it
// ends, so that there is no such thing as a stale one. The file is never removed: that would break the exclusion.
func (l layout) lock() (*os.File, error) {
	name := l.path("lock")
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock %s: %w", name, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := "another process"
		if text, readErr := os.ReadFile(name); readErr == nil && len(text) > 0 {
			holder = "process " + strings.TrimSpace(string(text))
		}
		file.Close()
		return nil, &failure{exitInUse, fmt.Errorf("%s is in use by %s", l.root, holder),
			"end it with `wasmlab down`, or choose another directory"}
	}
	if err := file.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	return file, nil
}

// checkVersion refuses a directory that another version wrote, when Kubernetes does not promise to read it: an API
// server reads what its own and the previous minor version stored, and nothing newer.
func (l layout) checkVersion() error {
	name := l.path("version.json")
	remedy := "use the wasmlab that made it, or begin anew in another directory"
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		if entries, _ := os.ReadDir(l.path("etcd")); len(entries) > 0 {
			return &failure{exitUnusable, fmt.Errorf("%s holds data but no version.json", l.root), remedy}
		}
		return l.writeVersion()
	}
	if err != nil {
		return err
	}
	var was struct {
		Layout     int    `json:"layout"`
		Kubernetes string `json:"kubernetes"`
	}
	if err := json.Unmarshal(text, &was); err != nil {
		return &failure{exitUnusable, fmt.Errorf("%s is damaged: %w", name, err), remedy}
	}
	if was.Layout != layoutVersion {
		return &failure{exitUnusable,
			fmt.Errorf("%s has layout %d, this program writes layout %d", l.root, was.Layout, layoutVersion), remedy}
	}
	is := versions()["kubernetes"]
	wasMinor, isMinor := minor(was.Kubernetes), minor(is)
	if wasMinor > isMinor || wasMinor < isMinor-1 {
		return &failure{exitUnusable,
			fmt.Errorf("%s was written by Kubernetes %s, this is %s", l.root, was.Kubernetes, is), remedy}
	}
	return l.writeVersion()
}

func (l layout) writeVersion() error {
	record := map[string]any{"layout": layoutVersion}
	for name, version := range versions() {
		record[name] = version
	}
	return writeJSON(l.path("version.json"), record)
}

// minor returns 37 for "v1.37.2", and 0 for what it cannot read.
func minor(version string) int {
	var major, number int
	if _, err := fmt.Sscanf(version, "v%d.%d", &major, &number); err != nil {
		return 0
	}
	return number
}

// state is what other programs read to find the control plane: written when it is ready, and again when it has
// stopped (then without pid), so that the next start can ask for the same ports.
type state struct {
	PID         int               `json:"pid,omitempty"`
	StartTicks  uint64            `json:"start_ticks,omitempty"`
	Started     string            `json:"started"`
	ReadyAfterS float64           `json:"ready_after_s"`
	Server      string            `json:"server"`
	APIPort     int               `json:"api_port"`
	Registry    string            `json:"registry"`
	RegPort     int               `json:"registry_port"`
	Kubeconfig  string            `json:"kubeconfig"`
	Versions    map[string]string `json:"versions"`
	Ready       bool              `json:"ready"`
}

func (l layout) readState() state {
	var s state
	if text, err := os.ReadFile(l.path("state.json")); err == nil {
		_ = json.Unmarshal(text, &s) // a damaged one only costs the wish for the same ports
	}
	return s
}

func (l layout) writeState(s state) error { return writeJSON(l.path("state.json"), s) }

func writeJSON(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(name, append(text, '\n'))
}

// writeFile replaces name atomically, with mode 0600.
func writeFile(name string, content []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err := temporary.Write(content); err != nil {
		temporary.Close()
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}

// startTicks identifies this process together with its pid: pids are used again, the pair is not.
func startTicks() uint64 {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces: count the fields after it. starttime is field 22 of proc(5).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks uint64
	if len(fields) > 19 {
		_, _ = fmt.Sscanf(fields[19], "%d", &ticks)
	}
	return ticks
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }
