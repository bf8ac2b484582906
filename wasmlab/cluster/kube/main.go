// Command wasmlab-kube is a whole Kubernetes control plane in one process: API server, scheduler, controller
// manager, etcd and an OCI registry, plus the kubectl and kubelet commands, so that a lab needs one file and no root.
//
// Usage:
//
//	wasmlab-kube up --dir DIR     run a control plane whose state is in DIR, until SIGTERM
//	wasmlab-kube registry ...     run only the registry
//	wasmlab-kube kubectl ...      the Kubernetes client of the same version
//	wasmlab-kube kubelet ...      the Kubernetes node agent of the same version
//	wasmlab-kube version          print the versions as JSON
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
)

// Exit codes that the caller tells apart; anything else that is not 0 is a crash, told in the log.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitInUse    = 3 // another process runs on the directory
	exitUnusable = 4 // the directory's content cannot be used by this program
)

// failure is an error that carries the exit code and what the reader can do about it.
type failure struct {
	code   int
	what   error
	remedy string
}

func (f *failure) Error() string {
	if f.remedy == "" {
		return f.what.Error()
	}
	return fmt.Sprintf("%v\ntry: %s", f.what, f.remedy)
}

func (f *failure) Unwrap() error { return f.what }

func main() {
	if len(os.Args) < 2 {
		usage(os.Stderr)
		os.Exit(exitUsage)
	}
	command, args := os.Args[1], os.Args[2:]
	var err error
	switch command {
	case "up":
		err = up(args)
	case "registry":
		err = serveRegistry(args)
	case "kubectl":
		err = runKubectl(args)
	case "kubelet":
		err = runKubelet(args)
	case "version":
		err = json.NewEncoder(os.Stdout).Encode(versions())
	case "help", "-h", "--help":
		usage(os.Stdout)
	default:
		fmt.Fprintf(os.Stderr, "wasmlab-kube: unknown command %q\n", command)
		usage(os.Stderr)
		os.Exit(exitUsage)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		var f *failure
		if errors.As(err, &f) {
			os.Exit(f.code)
		}
		os.Exit(exitFailed)
	}
}

func usage(to *os.File) {
	fmt.Fprintln(to, "usage: wasmlab-kube up --dir DIR | registry --root DIR | kubectl ... | kubelet ... | version")
}

// versions reports what is linked in, read from the module information of the binary itself.
func versions() map[string]string {
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	found["go"] = info.GoVersion
	names := map[string]string{
		"k8s.io/kubernetes":                       "kubernetes",
		"go.etcd.io/etcd/server/v3":               "etcd",
		"github.com/distribution/distribution/v3": "registry",
	}
	for _, module := range info.Deps {
		if name, wanted := names[module.Path]; wanted {
			found[name] = module.Version
		}
	}
	return found
}
