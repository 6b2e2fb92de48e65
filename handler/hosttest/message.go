package hosttest

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The host's two sides are written by hand: net/http would refuse, repair or reorder what the host passes on.

// field is one line of a header.
type field struct{ name, value string }

type header []field

// get returns the first value of that name.
func (h header) get(name string) (string, bool) {
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			return f.value, true
		}
	}
	return "", false
}

// count is how many lines have that name.
func (h header) count(name string) int {
	n := 0
	for _, f := range h {
		if strings.EqualFold(f.name, name) {
			n++
		}
	}
	return n
}

// has tells whether one of the values of that name, separated by commas, is this one.
func (h header) has(name, value string) bool {
	for _, f := range h {
		if !strings.EqualFold(f.name, name) {
			continue
		}
		for part := range strings.SplitSeq(f.value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), value) {
				return true
			}
		}
	}
	return false
}

// without returns the lines whose names are in no list.
func (h header) without(lists ...[]string) header {
	var kept header
	for _, f := range h {
		if !listed(f.name, lists...) {
			kept = append(kept, f)
		}
	}
	return kept
}

func listed(name string, lists ...[]string) bool {
	for _, list := range lists {
		for _, other := range list {
			if strings.EqualFold(name, other) {
				return true
			}
		}
	}
	return false
}

// length is the header's Content-Length, -1 without one.
func (h header) length() (int64, error) {
	value, ok := h.get("Content-Length")
	if !ok {
		return -1, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(value, "+") || h.count("Content-Length") > 1 {
		return 0, fmt.Errorf("bad Content-Length %q", value)
	}
	return n, nil
}

func (h header) String() string {
	var out strings.Builder
	for _, f := range h {
		out.WriteString(f.name + ": " + f.value + "\r\n")
	}
	return out.String()
}

var errTooLong = errors.New("line too long")

// readLine reads a line of at most so many bytes. An error before its first byte is the connection's own.
func readLine(in *bufio.Reader, most int) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > most {
			return "", errTooLong
		}
		if err == nil {
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

// skipTrailers reads to the end of a chunked body. The host passes no trailers on, in either direction.
func skipTrailers(in *bufio.Reader) error {
	for {
		line, err := readLine(in, maxHead)
		if err != nil || line == "" {
			return err
		}
	}
}

// isToken tells whether a name can be that of a header.
func isToken(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return name != ""
}

func isASCII(text string) bool {
	for _, c := range []byte(text) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
