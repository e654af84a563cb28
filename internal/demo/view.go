package demo

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// view writes for people. On a terminal it keeps a block of lines at the bottom that is drawn again and again, and what
// else is said goes above it. Elsewhere everything is written once. It may be used from several goroutines.
type view struct {
	mu    sync.Mutex
	out   io.Writer
	tty   *os.File // nil: no terminal
	block []string // lines that are on the screen, at the bottom
	drawn int      // how many of them
	step  string   // kind of the last progress message
	began time.Time
}

func newView(out io.Writer) *view {
	v := &view{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			v.tty = f
		}
	}
	return v
}

// live says whether a block can be redrawn.
func (v *view) live() bool { return v.tty != nil }

// begin sets the clock of notices to zero.
func (v *view) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.began = time.Now()
}

func (v *view) elapsed() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Since(v.began)
}

// size returns the size of the terminal; 80 by 24 if it does not say.
func (v *view) size() (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(v.tty.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// line writes text that stays.
func (v *view) line(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	block := v.block
	v.draw(nil)
	fmt.Fprintf(v.out, format+"\n", args...)
	v.draw(block)
}

// notice writes a line that stays, with the time.
func (v *view) notice(format string, args ...any) {
	v.line("%s  %s", clock(v.elapsed()), fmt.Sprintf(format, args...))
}

// progress shows what is going on now, until something else is shown. Without a terminal, only the steps are told, not
// the counting.
func (v *view) progress(message string) {
	if v.live() {
		v.redraw([]string{"… " + message})
		return
	}
	kind := strings.Join(slices.DeleteFunc(strings.Fields(message), func(word string) bool { return word[0] >= '0' && word[0] <= '9' }), " ")
	v.mu.Lock()
	again := kind == v.step
	v.step = kind
	v.mu.Unlock()
	if !again {
		v.line("… %s", message)
	}
}

// redraw replaces the block.
func (v *view) redraw(lines []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.draw(lines)
}

// clear removes the block.
func (v *view) clear() { v.redraw(nil) }

// settle leaves the block on the screen for good.
func (v *view) settle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.block, v.drawn = nil, 0
}

func (v *view) draw(lines []string) {
	if !v.live() || len(lines) == 0 && v.drawn == 0 {
		return
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn) // up
	}
	b.WriteString("\r\x1b[J") // clear all below
	columns, rows := v.size()
	v.block, v.drawn = lines, min(len(lines), max(1, rows-1))
	for _, line := range lines[:v.drawn] {
		b.WriteString(cut(line, columns-1))
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(v.out, b.String()) // one write, so that it does not flicker
}

// cut shortens a line to a number of columns. All that we write is one column wide.
func cut(line string, columns int) string {
	runes := []rune(line)
	if len(runes) <= columns {
		return line
	}
	return string(runes[:max(0, columns-1)]) + "…"
}

// clock writes a duration as minutes and seconds.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// number writes a number with commas.
func number(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func megabytes(n float64) string { return fmt.Sprintf("%.2f", n/1e6) }

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

// lastLines returns the end of a file, at most n lines of it.
func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
