package agent

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine bounds a line of a stream, and the data of an event, in bytes.
const maxLine = 4 << 20

var errLine = errors.New("a line of the stream is too long")

// eventReader reads text/event-stream (WHATWG HTML, 9.2), however it is cut into pieces. Ids and retry times are not read: nobody comes again.
type eventReader struct {
	r       *bufio.Reader
	begun   bool // a byte order mark may stand before that
	afterCR bool // a LF belongs to it
}

func newEventReader(body io.Reader) *eventReader {
	return &eventReader{r: bufio.NewReaderSize(body, 32<<10)}
}

// next returns the next event with its data, or io.EOF. An event without data counts when it has a name, for some ends have none.
func (e *eventReader) next() (name string, data []byte, err error) {
	hasData := false
	for {
		line, err := e.line()
		if err != nil {
			return "", nil, err
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) == 0 && (hasData || name != ""):
			return name, data, nil
		case string(field) == "event":
			name = string(value)
		case string(field) == "data":
			if hasData {
				data = append(data, '\n')
			}
			data, hasData = append(data, value...), true
		}
		if len(data) > maxLine {
			return "", nil, errLine
		}
	}
}

// line returns the next line without its end: LF, CR, or CR and LF. A line without an end is none.
func (e *eventReader) line() ([]byte, error) {
	var line []byte
	for {
		c, err := e.r.ReadByte()
		if err != nil {
			return nil, err
		}
		isSecond := c == '\n' && e.afterCR
		e.afterCR = c == '\r'
		switch {
		case isSecond:
		case c == '\n' || c == '\r':
			if !e.begun {
				e.begun = true
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			return line, nil
		case len(line) == maxLine:
			return nil, errLine
		default:
			line = append(line, c)
		}
	}
}
