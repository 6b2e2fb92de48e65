package chat

import (
	"strings"
	"unicode"

	"github.com/clipperhouse/uax29/v2/graphemes"
	"github.com/clipperhouse/uax29/v2/words"
)

// What is shown of a message's text. A character is what a user takes for one (UAX #29), however many code points it has.
const (
	titleCharacters   = 60
	previewCharacters = 120
	maxPreviewPoints  = 1000 // code points, against characters without end
)

// titleOf returns the title that a message with the text gives its conversation: its first 60 characters, up to the end of a word unless
// the first is longer. White space is folded, and what moves a cursor or turns the writing around is left out.
// It is as short as a title that an owner gives, and empty when there is nothing to show.
func titleOf(text string) string {
	folded := fold(text, maxTitleCharacters+1)
	title := leading(folded, titleCharacters, maxTitleCharacters)
	if title == folded {
		return title
	}
	end := 0
	characters, segments := graphemes.FromString(title), words.FromString(folded)
	for segments.Next() && segments.End() <= len(title) {
		for characters.End() < segments.End() {
			characters.Next()
		}
		if characters.End() == segments.End() { // a word may begin within a character
			end = segments.End()
		}
	}
	if end > 0 {
		title = folded[:end]
	}
	return strings.TrimRight(title, " ")
}

// previewOf returns the beginning of a text, as a list shows it.
func previewOf(text string) string {
	return leading(text, previewCharacters, maxPreviewPoints)
}

// preview is that of the last of the messages that have text.
func (r Reply) preview() string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if text := r.Messages[i].Text; text != "" {
			return previewOf(text)
		}
	}
	return ""
}

// leading returns as many whole characters as text begins with, at most so many of at most so many code points.
func leading(text string, most, points int) string {
	if len(text) <= min(most, points) {
		return text
	}
	window, n := text, 0
	for i := range text {
		if n == points {
			window = text[:i]
			break
		}
		n++
	}
	end, characters := 0, graphemes.FromString(window)
	for range most {
		if !characters.Next() || characters.End() == len(window) && len(window) < len(text) { // it may go on behind the window
			break
		}
		end = characters.End()
	}
	return text[:end]
}

// fold returns the first code points of a text as one line.
func fold(text string, points int) string {
	var b strings.Builder
	n, isGap := 0, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			isGap = n > 0
			continue
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			continue
		case isGap:
			b.WriteByte(' ')
			n, isGap = n+1, false
		}
		if n >= points {
			break
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
