package main

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A setting is an environment variable: what README says of it, and how its text is read. One that is not set, or empty, has its default.
type setting struct {
	name     string
	fallback string // the default, as it would be given; empty: none
	meaning  string
	kind
}

// A kind is what a setting takes.
type kind struct {
	limits string            // of a number or a duration, as README shows them
	wants  string            // completes "must be …"
	read   func(string) bool // keeps the value, or reports that the text is not what the setting wants
}

// An area is the settings that belong together.
type area struct {
	title    string
	settings []setting
}

// An environment reads settings, and gathers what is wrong with them.
type environment struct {
	getenv   func(string) string
	areas    []area // all that were read, in README's order
	errs     []error
	warnings []string
}

// read reads the settings of an area, each into the variable that it names.
func (e *environment) read(title string, settings ...setting) {
	e.areas = append(e.areas, area{title, settings})
	for _, s := range settings {
		s.read(s.fallback)
		if text := e.text(s.name); text != "" && !s.read(text) {
			e.refuse(s.name, "must be "+s.wants)
		}
	}
}

// text is what an environment variable holds, without the space around it.
func (e *environment) text(name string) string { return strings.TrimSpace(e.getenv(name)) }

// refuse adds an error, which begins with the setting's name. It must not quote a value that may hold a secret.
func (e *environment) refuse(name, why string) {
	e.errs = append(e.errs, fmt.Errorf("%s %s", name, why))
}

// giveWay moves a default to what another setting leaves room for. A value that was given is refused instead.
func (e *environment) giveWay(name string, value *time.Duration, to time.Duration, why string) {
	if e.text(name) != "" {
		e.refuse(name, why)
		return
	}
	*value = to
}

func (e *environment) warn(message string) { e.warnings = append(e.warnings, message) }

func text(value *string) kind {
	return kind{read: func(text string) bool {
		*value = text
		return true
	}}
}

// list takes values separated by commas.
func list(values *[]string) kind {
	return kind{read: func(text string) bool {
		*values = nil
		for value := range strings.SplitSeq(text, ",") {
			if value = strings.TrimSpace(value); value != "" {
				*values = append(*values, value)
			}
		}
		return true
	}}
}

// matching takes a text of a form.
func matching(value *string, form *regexp.Regexp, wants string) kind {
	return kind{wants: wants, read: func(text string) bool {
		if text != "" && !form.MatchString(text) {
			return false
		}
		*value = text
		return true
	}}
}

func oneOf(value *string, words ...string) kind {
	return kind{wants: strings.Join(words, " or "), read: func(text string) bool {
		if text != "" && !slices.Contains(words, text) {
			return false
		}
		*value = text
		return true
	}}
}

func boolean(value *bool) kind {
	return kind{wants: "true or false", read: func(text string) bool {
		*value = text == "true"
		return text == "true" || text == "false"
	}}
}

func integer[T int | int64](value *T, least, most T) kind {
	return kind{
		limits: fmt.Sprintf("%d to %d", least, most),
		wants:  fmt.Sprintf("a whole number from %d to %d", least, most),
		read: func(text string) bool {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < int64(least) || n > int64(most) {
				return false
			}
			*value = T(n)
			return true
		},
	}
}

// seconds takes a duration as a whole number of seconds.
func seconds(value *time.Duration, least, most int64) kind {
	return whole(value, time.Second, least, most)
}

// milliseconds takes a duration as a whole number of milliseconds.
func milliseconds(value *time.Duration, least, most int64) kind {
	return whole(value, time.Millisecond, least, most)
}

// whole takes a duration as a whole number of units.
func whole(value *time.Duration, unit time.Duration, least, most int64) kind {
	var n int64
	k := integer(&n, least, most)
	read := k.read
	k.read = func(text string) bool {
		if !read(text) {
			return false
		}
		*value = time.Duration(n) * unit
		return true
	}
	return k
}

// share takes a number from 0 to 1.
func share(value *float64) kind {
	return kind{limits: "0 to 1", wants: "a number from 0 to 1", read: func(text string) bool {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(0 <= n && n <= 1) {
			return false
		}
		*value = n
		return true
	}}
}

// pairs takes name=value pairs separated by commas, percent-encoded where need be.
func pairs(value *map[string]string) kind {
	return kind{wants: "name=value pairs separated by commas, percent-encoded", read: func(text string) bool {
		all := make(map[string]string)
		for pair := range strings.SplitSeq(text, ",") {
			if pair = strings.TrimSpace(pair); pair == "" {
				continue
			}
			name, encoded, isPair := strings.Cut(pair, "=")
			decoded, err := url.PathUnescape(strings.TrimSpace(encoded))
			if name = strings.TrimSpace(name); !isPair || name == "" || err != nil {
				return false
			}
			all[name] = decoded
		}
		*value = all
		return true
	}}
}

func duration(value *time.Duration, least, most time.Duration) kind {
	return kind{
		limits: fmt.Sprintf("%s to %s", short(least), short(most)),
		wants:  fmt.Sprintf("a duration from %s to %s, such as 10s or 250ms", short(least), short(most)),
		read: func(text string) bool {
			d, err := time.ParseDuration(text)
			if err != nil || d < least || d > most {
				return false
			}
			*value = d
			return true
		},
	}
}

// short writes a limit as a setting would.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.String()
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%gs", d.Seconds())
	}
}
