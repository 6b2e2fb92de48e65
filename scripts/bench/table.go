package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// row is a figure of both servers, a value for each round.
type row struct {
	request, figure    string
	handler, yardstick []float64
	aim                string
}

// ratio is the median of the rounds' ratios: a disturbance hits the two halves of a round alike.
func (r row) ratio() float64 {
	ratios := make([]float64, len(r.handler))
	for i := range ratios {
		ratios[i] = r.handler[i] / r.yardstick[i]
	}
	return median(ratios)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func printTable(w io.Writer, rounds int, others float64, loaded, alone []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of %d rounds, the handler's and the yardstick's in turn. CPU, commands, time and bytes are per request.\n"+
		"Other programs had %.0f %% of the processors.\n", rounds, 100*others)
	for _, part := range []struct {
		title string
		rows  []row
	}{
		{fmt.Sprintf("%d connections, no append-only file", connections), loaded},
		{"one connection, one request after another", alone},
	} {
		fmt.Fprintf(&b, "\n%-48s %10s %10s %8s  %s\n", part.title, "handler", "yardstick", "ratio", "aim")
		request := ""
		for _, r := range part.rows {
			if r.request != request && request != "" {
				b.WriteByte('\n')
			}
			line := fmt.Sprintf("%-22s %-25s %10s %10s %8s  %s", r.request, r.figure,
				number(median(r.handler)), number(median(r.yardstick)), number(r.ratio()), r.aim)
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			request = r.request
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// number writes at least three digits of a value.
func number(value float64) string {
	switch size := math.Abs(value); {
	case math.IsNaN(value) || math.IsInf(value, 0):
		return "–" // the yardstick has none
	case size >= 100 || value == math.Trunc(value):
		return strconv.FormatFloat(value, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	default:
		return strconv.FormatFloat(value, 'f', 2, 64)
	}
}
