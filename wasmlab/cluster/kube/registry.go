package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

// registry is the CNCF distribution registry on a listener of ours. Its own server command is not used, because it
// wants a port chosen in advance, reads signals, and sends traces.
type registry struct{ server *http.Server }

// startRegistry serves the blobs in root. htpasswd names a file of users (bcrypt) and may be empty.
func startRegistry(root, htpasswd string, listener net.Listener) (_ *registry, err error) {
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "warn", "accesslog": map[string]any{"disabled": true}},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": root},
			"delete":     map[string]any{"enabled": true},
		},
		// The secret signs the state of unfinished uploads, which end with the process.
		"http": map[string]any{"addr": listener.Addr().String(), "secret": rand.Text()},
	}
	if htpasswd != "" {
		config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "wasmlab", "path": htpasswd}}
	}
	text, err := json.Marshal(config) // JSON is YAML, and quotes paths rightly
	if err != nil {
		return nil, err
	}
	parsed, err := configuration.Parse(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("configure the registry: %w", err)
	}
	logrus.SetLevel(logrus.WarnLevel)
	defer func() { // the registry panics where it cannot set itself up
		if cause := recover(); cause != nil {
			err = fmt.Errorf("start the registry on %s: %v", root, cause)
		}
	}()
	app := handlers.NewApp(context.Background(), parsed)
	r := &registry{server: &http.Server{Handler: app, ReadHeaderTimeout: 30 * time.Second}}
	go func() {
		if err := r.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			logrus.Errorf("registry: %v", err)
		}
	}()
	return r, nil
}

func (r *registry) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if r.server.Shutdown(ctx) != nil {
		_ = r.server.Close()
	}
}

// serveRegistry is the subcommand: a registry on its own, for tests and for labs that have a cluster already.
func serveRegistry(args []string) error {
	flags := flag.NewFlagSet("registry", flag.ExitOnError)
	root := flags.String("root", "", "directory of the blobs")
	address := flags.String("addr", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	htpasswd := flags.String("htpasswd", "", "file of users and bcrypt passwords; everybody may read and write without")
	_ = flags.Parse(args)
	if *root == "" {
		return &failure{exitUsage, errors.New("registry needs --root DIR"), ""}
	}
	absolute, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(absolute, 0o700); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	r, err := startRegistry(absolute, *htpasswd, listener)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"registry": listener.Addr().String(), "pid": os.Getpid()})
	<-ctx.Done()
	r.stop()
	return nil
}
