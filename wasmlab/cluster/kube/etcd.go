package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	etcdTimeout = 30 * time.Second // it takes a tenth of a second; damaged data can make it wait for ever
	etcdQuota   = 2 << 30          // bytes; beyond it etcd refuses writes
	walSegment  = 16 << 20         // bytes; etcd preallocates two of them, at 64 MB each by default
)

// store is a running etcd that only this process can talk to: it listens on a unix socket in a 0700 directory, and
// on nothing else. A lone member has no peers, so that it needs no peer port either.
type store struct {
	etcd     *embed.Etcd
	dir      *os.File
	endpoint string
}

// startEtcd opens the data in l and waits until it serves.
func startEtcd(ctx context.Context, l layout, fsync bool) (_ *store, err error) {
	damaged := func(cause any) error {
		return &failure{exitUnusable, fmt.Errorf("etcd cannot open %s: %v", l.path("etcd"), cause),
			"free some disk space if it is full; else move that directory away (every Kubernetes object in it is " +
				"lost), or choose another --dir"}
	}
	dir, err := os.Open(l.path("etcd"))
	if err != nil {
		return nil, damaged(err)
	}
	// A socket's path is limited to 108 bytes and a lab's directory may be deeper than that. The directory's
	// descriptor is a short name for it, valid here: the API server, the only client, is in this process.
	endpoint := fmt.Sprintf("unix:///proc/self/fd/%d/etcd.sock", dir.Fd())
	listen, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	// Never dialled: a lone member calls nobody. It is stored with the data and so must not change.
	self := url.URL{Scheme: "unix", Path: "/wasmlab"}

	wal.SegmentSizeBytes = walSegment
	config := embed.NewConfig()
	config.Name = "wasmlab"
	config.Dir = l.path("etcd", "data")
	config.ListenPeerUrls = nil
	config.ListenClientUrls = []url.URL{*listen}
	config.AdvertisePeerUrls = []url.URL{self}
	config.AdvertiseClientUrls = []url.URL{self}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.EnableGRPCGateway = false
	config.QuotaBackendBytes = etcdQuota
	config.SnapshotCount = 10000
	config.UnsafeNoFsync = !fsync
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger())

	// etcd panics, or ends the process, on data that it cannot read. Both become an error here.
	defer func() {
		if cause := recover(); cause != nil {
			err = damaged(cause)
		}
	}()
	if err := checkData(filepath.Join(config.Dir, "member")); err != nil {
		return nil, damaged(err)
	}
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, damaged(err)
	}
	s := &store{etcd: etcd, dir: dir, endpoint: endpoint}
	select {
	case <-etcd.Server.ReadyNotify():
		return s, nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = damaged("it stopped while it started")
	case <-time.After(etcdTimeout):
		err = damaged(fmt.Sprintf("it is not ready after %s; the log of writes may have lost its end", etcdTimeout))
	case <-ctx.Done():
		err = fmt.Errorf("etcd is not ready: %w", context.Cause(ctx))
	}
	within(stopGrace, s.stop)
	return nil, err
}

// checkData reads what etcd is about to read. etcd itself panics on damage, partly in goroutines of its own, where
// nobody can turn it into a message.
func checkData(dir string) error {
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return nil // a new lab
	}
	db, err := bolt.Open(filepath.Join(dir, "snap", "db"), 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("the database: %w", err)
	}
	if err := db.Close(); err != nil {
		return err
	}
	logger, writes := zap.NewNop(), filepath.Join(dir, "wal")
	snapshots, err := wal.ValidSnapshotEntries(logger, writes)
	if err != nil {
		return fmt.Errorf("the log of writes: %w", err)
	}
	from := &walpb.Snapshot{}
	if len(snapshots) > 0 {
		from = snapshots[len(snapshots)-1]
	}
	if _, err := wal.Verify(logger, writes, from); err != nil {
		return fmt.Errorf("the log of writes: %w", err)
	}
	return nil
}

func (s *store) stop() {
	s.etcd.Close()
	s.dir.Close()
}

// etcdLogger writes warnings and worse to stderr, and panics where etcd would end the process.
func etcdLogger() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig())
	core := zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), zapcore.WarnLevel)
	return zap.New(core, zap.WithFatalHook(zapcore.WriteThenPanic)).Named("etcd")
}
