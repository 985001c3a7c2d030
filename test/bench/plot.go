package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// The plot's measures in pixels.
const (
	plotWidth  = 900
	plotLabel  = 270
	plotBar    = 14
	plotGap    = 8
	plotTitle  = 34
	plotMargin = 12
)

// plot draws the ratios to the first target of each set: a bar to the median, a line from the
// lowest to the highest.
func plot(results []result) string {
	var b strings.Builder
	y := plotMargin
	for _, r := range results {
		for _, m := range []struct{ name, title string }{{"connections", "connections/s"}, {"requests64", "requests/s on 64 kept connections"}} {
			if len(r.Targets) > 0 && len(r.Series[m.name]) > 0 {
				y = r.chart(&b, y, m.name, r.Title+": "+m.title+", ratio to "+r.Targets[0])
			}
		}
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n%s</svg>\n", plotWidth, y+plotMargin, b.String())
}

// chart draws one measure from y on downwards and returns where it ends.
func (r result) chart(b *strings.Builder, y int, measure, title string) int {
	highest := 1.0
	for _, t := range r.Targets {
		highest = slices.Max(append(r.ratios(measure, t), highest))
	}
	x := func(ratio float64) float64 {
		return plotLabel + ratio/highest*(plotWidth-plotLabel-60)
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", plotMargin, y+20, html.EscapeString(title))
	y += plotTitle
	for _, t := range r.Targets {
		ratios := r.ratios(measure, t)
		if len(ratios) == 0 {
			continue
		}
		mid, colour := float64(y)+plotBar/2, "#9aa5b1"
		if strings.HasPrefix(t, "unitgen") {
			colour = "#2f6f4f"
		}
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">%s</text>\n", plotLabel-8, mid+4, html.EscapeString(t))
		fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", plotLabel, y, x(median(ratios))-plotLabel, plotBar, colour)
		fmt.Fprintf(b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#222\"/>\n", x(slices.Min(ratios)), x(slices.Max(ratios)), mid, mid)
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.0f\">%.2f</text>\n", x(slices.Max(ratios))+6, mid+4, median(ratios))
		y += plotBar + plotGap
	}
	return y + plotMargin
}
