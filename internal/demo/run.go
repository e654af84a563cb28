package demo

import (
	"context"
	"fmt"
	"time"
)

// run shows what goes on until the time is over, then compares.
func (d *demo) run(ctx context.Context) error {
	if err := d.watch.sample(ctx); err != nil {
		return d.cause(err)
	}
	d.view.clear()
	d.printHeader()
	d.view.begin()
	if err := d.cause(d.show(ctx)); err != nil {
		return err
	}
	d.written = d.watch.now()
	if d.cfg.Duration == 0 {
		d.printSummary(verdict{})
		return nil
	}
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	v, err := d.verify(ctx)
	if err := d.cause(err); err != nil {
		return err
	}
	d.printSummary(v)
	return nil
}

// show samples and draws until the duration is over or ctx ends. It leaves the writers stopped.
func (d *demo) show(ctx context.Context) error {
	defer d.stopWriting()
	var end <-chan time.Time
	if d.cfg.Duration > 0 {
		timer := time.NewTimer(d.cfg.Duration)
		defer timer.Stop()
		end = timer.C
	}
	kill, stop := d.killTimes()
	defer stop()
	for due, over := false, false; ; {
		if err := d.observe(d.work.ctx, ""); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if due {
			killed, err := d.killLeader()
			if err != nil {
				return err
			}
			if due = !killed; over && killed {
				return nil
			}
		}
		select {
		case <-kill:
			due = true
		case <-ctx.Done():
			return nil
		case <-d.work.ctx.Done():
			return d.work.ctx.Err()
		case <-end:
			if !due || over {
				return nil
			}
			over, end = true, time.After(catchUp) // a kill waits until somebody leads
		case <-time.After(d.pace()):
		}
	}
}

// killTimes returns a channel that tells when to kill the leader; nil is never. stop has to be called in the end.
func (d *demo) killTimes() (times <-chan time.Time, stop func()) {
	switch {
	case d.cfg.KillEvery > 0:
		ticker := time.NewTicker(d.cfg.KillEvery)
		return ticker.C, ticker.Stop
	case d.cfg.Kill && d.cfg.Duration > 0:
		timer := time.NewTimer(d.cfg.Duration / 2)
		return timer.C, func() { timer.Stop() }
	}
	return nil, func() {}
}

// pace is how long to wait until the next sample: while nobody leads only a moment, to be exact about how long that was.
func (d *demo) pace() time.Duration {
	if d.chronicle.lost {
		return redraw / 10
	}
	return redraw
}

// observe takes a sample, tells what has happened since the last one, and draws. what says what is being done.
func (d *demo) observe(ctx context.Context, what string) error {
	if err := d.watch.sample(ctx); err != nil {
		return err
	}
	s := d.watch.now()
	for _, line := range d.chronicle.follow(&s) {
		d.view.notice("%s", line)
	}
	for i, k := range d.nodes {
		k.setLed(len(d.nodes) > 1 && d.chronicle.leader.node == i)
	}
	d.draw(what)
	return nil
}

// killLeader kills the node that leads; false: nobody does.
func (d *demo) killLeader() (bool, error) {
	s := d.watch.now()
	i := s.leader()
	if i < 0 {
		return false, nil
	}
	pid, err := d.nodes[i].kill()
	if err != nil {
		return false, fmt.Errorf("kill %s: %w", d.nodes[i].name, err)
	}
	if pid != 0 {
		d.view.notice("the demo itself does kill -9 %d, which is %s", pid, d.nodes[i].name)
	}
	return pid != 0, nil
}
