package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

const (
	// Per component. The API server, asked to stop, waits up to a minute for watches that will not end by
	// themselves; nothing is lost by not waiting, since etcd has every write that was answered.
	stopGrace = 3 * time.Second
	// A control plane alone needs about 250 MB of live heap less than Go would let it grow to by default.
	gcPercent = 50
)

// up runs a control plane until SIGTERM, SIGINT, the end of the parent (with --parent-fd) or a failure.
func up(args []string) error {
	began := time.Now()
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	dir := flags.String("dir", "", "directory of the control plane's state; created if missing")
	apiPort := flags.Int("api-port", 0, "port of the API server; 0 takes the one it had, or a free one")
	registryPort := flags.Int("registry-port", 0, "port of the registry; likewise")
	parent := flags.Int("parent-fd", -1, "a pipe: when its other end is closed, stop, and end the lab's nodes too")
	ephemeral := flags.Bool("ephemeral", false, "with --parent-fd: then remove the directory")
	timeout := flags.Duration("timeout", 60*time.Second, "fail if not ready by then")
	fsync := flags.Bool("fsync", false, "survive a power cut (slower writes); a crash of this program is survived anyway")
	services := flags.String("service-cidr", "10.96.0.0/16", "range of the Services' addresses")
	pods := flags.String("pod-cidr", "10.244.0.0/16", "range from which nodes get their PodCIDR")
	_ = flags.Parse(args)
	if *dir == "" || flags.NArg() > 0 {
		return &failure{exitUsage, errors.New("up needs --dir DIR, and no other argument"), ""}
	}
	_, serviceNet, err := net.ParseCIDR(*services)
	if err != nil {
		return &failure{exitUsage, err, ""}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}

	root, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	l := layout{root}
	if err := l.prepare(); err != nil {
		return err
	}
	lock, err := l.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := l.checkVersion(); err != nil {
		return err
	}

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	var abandoned atomic.Bool
	if *parent >= 0 {
		go func() {
			_, _ = os.NewFile(uintptr(*parent), "parent").Read(make([]byte, 1))
			klog.Info("the parent process has ended")
			abandoned.Store(true)
			cancel()
		}()
	}
	defer func() { // what the parent would do if it could
		if abandoned.Load() {
			endOrphans(l.path("nodes"), stopGrace)
			if *ephemeral {
				_ = os.RemoveAll(l.root)
			}
		}
	}()

	was := l.readState()
	api, err := listen(*apiPort, was.APIPort)
	if err != nil {
		return err
	}
	defer api.Close()
	blobs, err := listen(*registryPort, was.RegPort)
	if err != nil {
		return err
	}
	defer blobs.Close()
	is := state{
		PID: os.Getpid(), StartTicks: startTicks(), Started: now(),
		Server: "https://" + api.Addr().String(), APIPort: portOf(api),
		Registry: blobs.Addr().String(), RegPort: portOf(blobs),
		Kubeconfig: l.kubeconfig("admin"), Versions: versions(),
	}
	if err := makePKI(l, is.Server, firstAddress(serviceNet)); err != nil {
		return err
	}
	if err := l.writeState(is); err != nil {
		return err
	}
	defer func() { // the ports stay on record, the process does not
		is.PID, is.StartTicks, is.Ready = 0, 0, false
		_ = l.writeState(is)
	}()

	p := &plane{layout: l, networks: networks{*services, *pods}, failed: make(chan error, 8)}
	defer p.stop()
	starting, done := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("gave up after %s", *timeout))
	defer done()
	if err := p.start(starting, api, blobs, *fsync); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while starting: not a failure
		}
		return err
	}
	is.Ready, is.ReadyAfterS = true, time.Since(began).Seconds()
	if err := l.writeState(is); err != nil {
		return err
	}
	_ = json.NewEncoder(os.Stdout).Encode(is)

	select {
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		cancel() // a second signal now ends the process at once
		return nil
	}
}

// plane is the set of running components, in the order in which they were started.
type plane struct {
	layout   layout
	networks networks
	failed   chan error // why a component ended by itself
	stops    []func()   // undone from the last to the first
}

func (p *plane) start(ctx context.Context, api, blobs net.Listener, fsync bool) error {
	registry, err := startRegistry(p.layout.path("registry"), "", blobs)
	if err != nil {
		return err
	}
	p.stops = append(p.stops, registry.stop)

	etcd, err := startEtcd(ctx, p.layout, fsync)
	if err != nil {
		return err
	}
	p.stops = append(p.stops, func() { within(stopGrace, etcd.stop) })

	p.run("the API server", func(ctx context.Context) error {
		return runAPIServer(ctx, p.layout, etcd, p.networks, api)
	})
	client, err := adminClient(p.layout)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // a component that ends while others start is the reason to give up at once
		select {
		case err := <-p.failed:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	if err := waitServing(ctx, client); err != nil {
		return err
	}
	p.run("the controller manager", func(ctx context.Context) error { return runControllers(ctx, p.layout, p.networks) })
	p.run("the scheduler", func(ctx context.Context) error { return runScheduler(ctx, p.layout) })
	return prepareCluster(ctx, client)
}

// run starts a component and remembers how to stop it.
func (p *plane) run(name string, component func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := component(ctx)
		if ctx.Err() == nil {
			p.failed <- fmt.Errorf("%s ended: %w", name, errors.Join(err, errors.New("it should run for ever")))
		} else if err != nil && !errors.Is(err, context.Canceled) {
			klog.ErrorS(err, "Stopping", "component", name)
		}
	})
	p.stops = append(p.stops, func() {
		cancel()
		within(stopGrace, running.Wait)
	})
}

// stopping changes what a fatal error means. The API server calls one when it is stopped while its start-up hooks
// run; by then that only has to end the hook, not this process, which still has something to say and to stop.
var stopping atomic.Bool

func init() {
	klog.OsExit = func(code int) {
		if stopping.Load() {
			runtime.Goexit()
		}
		os.Exit(code)
	}
}

func (p *plane) stop() {
	stopping.Store(true)
	for len(p.stops) > 0 {
		last := len(p.stops) - 1
		p.stops[last]()
		p.stops = p.stops[:last]
	}
	klog.Flush()
}

// within returns when f has, or after the grace.
func within(grace time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(grace):
	}
}

// listen opens a loopback port: the demanded one or nothing; else the one it had before, so that kubeconfigs and
// image references stay valid; else any. The open listener is handed on, so that nobody can take the port meanwhile.
func listen(demanded, before int) (net.Listener, error) {
	if demanded != 0 {
		listener, err := net.Listen("tcp", loopback(demanded))
		if err != nil {
			return nil, &failure{exitFailed, err, "choose another port, or 0 for a free one"}
		}
		return listener, nil
	}
	if before != 0 {
		if listener, err := net.Listen("tcp", loopback(before)); err == nil {
			return listener, nil
		}
		klog.Warningf("port %d, used before, is taken: choosing another", before)
	}
	return net.Listen("tcp", loopback(0))
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// firstAddress is what Kubernetes gives to the Service "kubernetes": the first address of the range.
func firstAddress(n *net.IPNet) net.IP {
	first := make(net.IP, len(n.IP))
	copy(first, n.IP)
	first[len(first)-1]++
	return first
}
