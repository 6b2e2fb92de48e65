package chat

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"
	"github.com/stretchr/testify/require"
)

const (
	family  = "👨‍👩‍👧‍👦"      // seven code points
	accent  = "e\u0301"      // two
	flag    = "🇩🇪"           // two
	conjunc = "क्षि"         // four
	samAm   = "\u0e19\u0e33" // a character of Thai that is two words to UAX #29
)

func characters(text string) int {
	n := 0
	for all := graphemes.FromString(text); all.Next(); {
		n++
	}
	return n
}

func TestATitleIsTheBeginningOfAMessage(t *testing.T) {
	long := strings.Repeat("x", 61)
	for name, row := range map[string]struct{ text, want string }{
		"nothing":                               {"", ""},
		"white space alone":                     {" \t\r\n\u00a0\u2028 ", ""},
		"short":                                 {"Hello", "Hello"},
		"folded":                                {"\n  Hello,\r\n\tdear\u00a0 \u2003world \n", "Hello, dear world"},
		"control characters":                    {"a\x1b[31mb\x7f\u0085c\u202ed\u2066e\ufffdf", "a[31mb cde\ufffdf"},
		"sixty":                                 {strings.Repeat("x", 60), strings.Repeat("x", 60)},
		"sixty and a space":                     {strings.Repeat("x", 60) + " y", strings.Repeat("x", 60)},
		"one long word":                         {long, strings.Repeat("x", 60)},
		"a long word behind a short one":        {"see " + long, "see"},
		"words":                                 {strings.Repeat("word ", 20), strings.TrimSpace(strings.Repeat("word ", 12))},
		"an end within a word":                  {strings.Repeat("word ", 11) + "longer ones", strings.TrimSpace(strings.Repeat("word ", 11))},
		"an apostrophe within the last word":    {strings.Repeat("x", 50) + " don't-we shouldn't", strings.Repeat("x", 50) + " don't-we"},
		"words without spaces":                  {strings.Repeat("漢字", 50), strings.Repeat("漢字", 30)},
		"families":                              {strings.Repeat(family, 61), strings.Repeat(family, 28)}, // 200 code points
		"accents":                               {strings.Repeat(accent, 61), strings.Repeat(accent, 60)},
		"flags":                                 {strings.Repeat(flag, 61), strings.Repeat(flag, 60)},
		"conjuncts":                             {strings.Repeat(conjunc, 61), strings.Repeat(conjunc, 49)}, // the next may go on
		"Thai, whose words nobody knows":        {strings.Repeat(samAm, 61), strings.Repeat(samAm, 60)},
		"a word that begins within a character": {"xx \u0d4e" + strings.Repeat("カ", 60), "xx"},
		"a character without end":               {"word " + strings.Repeat("\u0301", 10_000), "word"},
	} {
		got := titleOf(row.text)
		require.Equal(t, row.want, got, name)
		require.Empty(t, checkPlain(TitleField, "", got, maxTitleCharacters), name)
	}
}

func TestAPreviewHasWholeCharacters(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"nothing":                 {"", ""},
		"as it is":                {" a\n\tb ", " a\n\tb "},
		"120":                     {strings.Repeat("x", 120), strings.Repeat("x", 120)},
		"121":                     {strings.Repeat("x", 121), strings.Repeat("x", 120)},
		"families":                {strings.Repeat(family, 121), strings.Repeat(family, 120)},
		"accents":                 {strings.Repeat(accent, 121), strings.Repeat(accent, 120)},
		"flags":                   {strings.Repeat(flag, 121), strings.Repeat(flag, 120)},
		"lines":                   {strings.Repeat("\r\n", 121), strings.Repeat("\r\n", 120)},
		"a character without end": {"word" + strings.Repeat("\u0301", 100_000), "wor"},
		"nothing but that":        {strings.Repeat("\u0301", 100_000), ""},
	} {
		got := previewOf(row.text)
		require.Equal(t, row.want, got, name)
		require.LessOrEqual(t, characters(got), previewCharacters, name)
		require.LessOrEqual(t, utf8.RuneCountInString(got), maxPreviewPoints, name)
	}
	card := Message{Kind: AdaptiveCard, CardJSON: []byte("{}")}
	require.Equal(t, "two", Reply{Messages: []Message{{Text: "one"}, {Text: "two"}, card}}.preview())
	require.Empty(t, Reply{Messages: []Message{card}}.preview())
}

// FuzzWordsOfAMessage holds what is promised of any text.
func FuzzWordsOfAMessage(f *testing.F) {
	for _, seed := range []string{"", "a b", family, accent + " " + flag, samAm, conjunc, "\r\n", "\u0d4e!", strings.Repeat("word\t", 40)} {
		f.Add(seed, strings.Repeat(seed, 70))
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		text := before + after
		if !storable(text) {
			return
		}
		title, preview := titleOf(text), previewOf(text)
		require.True(t, strings.HasPrefix(text, preview))
		require.LessOrEqual(t, characters(title), titleCharacters)
		require.LessOrEqual(t, characters(preview), previewCharacters)
		require.Empty(t, checkPlain(TitleField, "", title, maxTitleCharacters))
		require.Equal(t, title, titleOf(title), "a title is its own")
		require.Equal(t, strings.Join(strings.Fields(title), " "), title)
		end, all := 0, graphemes.FromString(text)
		for end < len(preview) && all.Next() {
			end = all.End()
		}
		require.Len(t, preview, end, "a character is cut")
	})
}
