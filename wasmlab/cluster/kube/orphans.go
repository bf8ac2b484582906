package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The modules that run node agents and sandboxes, as they stand on a command line.
var orphanModules = []string{"wasmlab.cli", "wasmlab.sandbox.zygote"}

// endOrphans ends the node agents and sandboxes that work below dir. It is called when the process that started the
// lab is gone and can no longer do it: sandboxes outlive agents on purpose, and a module may run for ever.
func endOrphans(dir string, grace time.Duration) {
	deadline := time.Now().Add(grace)
	asked := map[int]bool{}
	for {
		left := orphans(dir)
		if len(left) == 0 {
			return
		}
		late := time.Now().After(deadline)
		for _, pid := range left {
			if late {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			} else if !asked[pid] {
				asked[pid] = true
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if late && time.Now().After(deadline.Add(grace)) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func orphans(dir string) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil || len(text) == 0 { // ended, or a zombie
			continue
		}
		words := strings.Split(string(text), "\x00")
		ours := slices.ContainsFunc(words, func(word string) bool { return slices.Contains(orphanModules, word) })
		below := slices.ContainsFunc(words, func(word string) bool {
			return strings.HasPrefix(word[strings.LastIndexByte(word, '=')+1:], dir+"/")
		})
		if ours && below {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				found = append(found, pid)
			}
		}
	}
	return found
}
