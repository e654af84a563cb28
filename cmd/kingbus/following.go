package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"kingbus/internal/config"
	"kingbus/internal/follow"
	"kingbus/internal/source"
	"kingbus/internal/wire"
)

// following is whom this node follows when it leads, and how: what the cluster says on top of
// the node's own settings.
type following struct {
	setting follow.Setting
	source  config.Source
	// puller is nil if there is no source, if it is stopped, or if problem says why it
	// cannot be followed.
	puller  *source.Puller
	problem error
}

// startSource follows the source that the settings say, whenever they say another one.
func (n *node) startSource(context.Context) error {
	first, revision, err := n.follow.Setting()
	if err != nil {
		n.log.Error("the source that the cluster follows cannot be understood by this node: does it run an older kingbus than the others?", "error", err)
	}
	n.source.Store(&following{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := n.run("source", func() error { return n.followSource(ctx, first, revision) })
	n.stops = append(n.stops, stage{"source", func(context.Context) error {
		cancel()
		<-ended
		return nil
	}})
	return nil
}

// followSource runs one Puller after the other until ctx ends.
func (n *node) followSource(ctx context.Context, setting follow.Setting, revision uint64) error {
	for {
		f := n.newFollowing(setting)
		n.source.Store(f)
		before := setting
		if err := n.pull(ctx, f, &setting, &revision); err != nil || ctx.Err() != nil {
			return err
		}
		if setting == before {
			continue // it is tried again
		}
		n.log.Info("the source is another one, or is followed in another way", "source", orNone(n.sourceOf(setting).Addr()), "stopped", setting.Stopped)
	}
}

// pull follows until the setting is another one, which it leaves in its place.
func (n *node) pull(ctx context.Context, f *following, setting *follow.Setting, revision *uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	going, over := context.WithCancel(ctx) // ends when the Puller does
	defer over()
	done := make(chan error, 1)
	go func() {
		if f.puller == nil {
			done <- nil
			return
		}
		err := f.puller.Run(ctx)
		if errors.Is(err, source.ErrUntilReached) {
			err = n.stopFollowing(ctx, f.setting)
		}
		if ctx.Err() != nil {
			err = nil
		}
		if err != nil {
			cancel() // nothing can be followed any more
		}
		done <- err
		over()
	}()
	for {
		wait, end := going, context.CancelFunc(func() {})
		if f.problem != nil { // a file that was missing, say, may be there meanwhile
			wait, end = context.WithTimeout(ctx, problemRetry)
		}
		awaited := n.follow.Await(wait, *revision)
		end()
		if ctx.Err() != nil {
			break
		}
		next, at, err := n.follow.Setting()
		if *revision = at; err != nil {
			n.log.Error("the source that the cluster follows cannot be understood by this node, which goes on as before: does it run an older kingbus than the others?", "error", err)
		} else if next != *setting {
			*setting = next
			break
		}
		if awaited != nil { // it is tried again; or it was stopped by UNTIL, and started as it was
			break
		}
	}
	cancel()
	return <-done
}

// flushSource has the source begin another file.
func (n *node) flushSource(ctx context.Context) error {
	if f := n.source.Load(); f != nil && f.puller != nil {
		return f.puller.Flush(ctx)
	}
	return source.ErrNotFollowed
}

// stopFollowing says STOP REPLICA for the cluster, unless somebody has said something else
// meanwhile.
func (n *node) stopFollowing(ctx context.Context, as follow.Setting) error {
	log, end := n.log.With("source", orNone(n.sourceOf(as).Addr())), n.stream.Status().SourceEnd
	log.Info("the source was followed up to where START REPLICA UNTIL said", "until", as.Until, "file", end.File, "pos", end.Pos)
	for {
		err := n.follow.Reached(ctx, as)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		log.Warn("the cluster cannot be told to stop; trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// problemRetry is how often a source is tried that cannot be followed as the cluster says.
const problemRetry = 5 * time.Second

// sourceOf puts what the cluster says on top of the node's own settings.
func (n *node) sourceOf(s follow.Setting) config.Source {
	src := n.cfg.Source
	if s.Host != "" {
		src.Host, src.Port = s.Host, 3306
	}
	src.Port = cmp.Or(s.Port, src.Port)
	src.User = cmp.Or(s.User, src.User)
	src.Heartbeat = cmp.Or(s.Heartbeat, src.Heartbeat)
	src.TLSFiles.CA = cmp.Or(s.CA, src.TLSFiles.CA)
	src.TLSFiles.Cert, src.TLSFiles.Key = cmp.Or(s.Cert, src.TLSFiles.Cert), cmp.Or(s.Key, src.TLSFiles.Key)
	src.Start = cmp.Or(s.Start, src.Start)
	src.TLS = s.TLSMode(src.TLS, src.TLSFiles.CA != "")
	return src
}

func (n *node) newFollowing(s follow.Setting) *following {
	f := &following{setting: s, source: n.sourceOf(s)}
	if f.source.Host == "" || s.Stopped {
		return f
	}
	if f.puller, f.problem = n.newPuller(f); f.problem != nil {
		f.puller = nil
		if last := n.source.Load(); last == nil || last.problem == nil || last.problem.Error() != f.problem.Error() {
			n.log.Error("the source cannot be followed as the cluster says; trying again", "error", f.problem)
		}
	}
	return f
}

// getPublicKey tells whether to take the source's RSA key from itself. Who can change what it says
// could give us his own, and read the password. So only where that is not to be feared, or where TLS
// was given up by choice.
func (f *following) getPublicKey() bool {
	if f.setting.PublicKey || f.setting.NoPublicKey {
		return f.setting.PublicKey
	}
	return f.source.TLS == wire.TLSDisabled || isLoopback(f.source.Host)
}

func (n *node) newPuller(f *following) (*source.Puller, error) {
	src := f.source
	start, err := source.ParseStart(src.Start)
	if err != nil {
		return nil, err
	}
	until, err := source.ParseUntil(f.setting.Until)
	if err != nil {
		return nil, err
	}
	tls, err := wire.LoadClientTLS(src.TLSFiles)
	if err != nil {
		return nil, fmt.Errorf("TLS towards the source: %w", err)
	}
	hostname, _ := os.Hostname() // only for SHOW REPLICAS
	_, port, _ := net.SplitHostPort(n.mysql.Addr().String())
	reportPort, _ := strconv.ParseUint(port, 10, 16)
	return source.New(source.Config{
		Stream: told{source.Adapt(n.stream), n.follow, f.setting}, Log: n.log.With("part", "source"),
		Host: src.Host, Port: src.Port, User: src.User,
		Password: func() ([]byte, error) {
			if f.setting.Password != "" {
				return []byte(f.setting.Password), nil
			}
			if own := n.cfg.Source; src.Host != own.Host || src.Port != own.Port {
				// It is for another server: this one must not learn it.
				return nil, errors.New("the cluster follows another server than the one in the settings of this node, and knows no password for it: STOP REPLICA, CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = …, START REPLICA")
			}
			secret, err := n.cfg.ReadSourcePassword()
			return []byte(secret.Reveal()), err
		},
		TLSMode: src.TLS, TLS: tls, GetServerPublicKey: f.getPublicKey(),
		Start: start, Until: until, Heartbeat: src.Heartbeat, Hooks: n.hooks,
		ReportHost: hostname[:min(len(hostname), 60)], ReportPort: uint16(reportPort),
	})
}

// told is the stream as a Puller sees it: it leads only while the setting is the one that the
// Puller was made for. A node that comes to lead has applied all changes of it, but the
// Puller is about to be ended because of one.
type told struct {
	source.Stream
	follow  *follow.Store
	setting follow.Setting
}

func (t told) Lead(ctx context.Context) (context.Context, error) {
	lead, err := t.Stream.Lead(ctx)
	if err != nil {
		return lead, err
	}
	if now, _, err := t.follow.Setting(); err == nil && now != t.setting {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return lead, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
