package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// isTerminal tells whether somebody sits at the other end.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows how far something has come: a bar on a terminal, else a line
// every two seconds. Nothing of it goes to the standard output.
type progress struct {
	out  io.Writer
	live bool // out is a terminal
	unit string

	bar  *progressbar.ProgressBar
	text string // description of bar
	max  uint64
	said time.Time
	line string // what was said then
}

// progressEvery is how often a line is written that is not for a terminal.
const progressEvery = 2 * time.Second

// barEvery is how often a bar is drawn anew: it may be told of every event.
const barEvery = 100 * time.Millisecond

// newProgress makes one on out. unit is what is counted; "" are bytes.
func newProgress(out io.Writer, unit string) *progress {
	return &progress{out: out, live: isTerminal(out), unit: unit}
}

// show tells what is done of all there is; all is 0 while that is not known.
func (p *progress) show(text string, done, all uint64) {
	if !p.live {
		p.print(p.lineOf(text, done, all))
		return
	}
	if all == 0 {
		if text != p.line { // it stays on its line until it changes
			p.end()
			p.line = text
			fmt.Fprint(p.out, text)
		}
		return
	}
	if p.bar == nil || text != p.text {
		p.end()
		p.text, p.max = text, all
		options := []progressbar.Option{
			progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(text), progressbar.OptionSetWidth(20), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(barEvery), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true),
		}
		if p.unit == "" {
			options = append(options, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
		} else {
			options = append(options, progressbar.OptionShowIts(), progressbar.OptionSetItsString(p.unit))
		}
		p.bar = progressbar.NewOptions64(int64(all), options...)
	}
	if all != p.max {
		p.max = all
		p.bar.ChangeMax64(int64(all))
	}
	_ = p.bar.Set64(int64(min(done, all))) // it fails only where the terminal does
}

func (p *progress) lineOf(text string, done, all uint64) string {
	switch {
	case all == 0:
		return text
	case p.unit == "":
		return fmt.Sprintf("%s: %s of %s, %d%%", text, bytesText(done), bytesText(all), 100*min(done, all)/all)
	}
	return fmt.Sprintf("%s: %d of %d %s, %d%%", text, done, all, p.unit, 100*min(done, all)/all)
}

// print writes a line, if the last one is old enough and another.
func (p *progress) print(line string) {
	if line == p.line || time.Since(p.said) < progressEvery {
		return
	}
	p.line, p.said = line, time.Now()
	fmt.Fprintln(p.out, line)
}

// end takes the bar away, so that something else can be written. Without a progress it does
// nothing.
func (p *progress) end() {
	if p == nil {
		return
	}
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	if p.live && p.line != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.line = ""
	}
}
