package config

import (
	"fmt"
	"strings"
)

// Longest name that is compared, and how many known names are listed where
// none is near.
const (
	maxCompared = 64
	maxListed   = 20
)

// suggestion ends the sentence "unknown …": with the known name nearest to
// name, or else with all of them.
func suggestion(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	switch {
	case len(known) == 0:
		return "; no key is known here"
	case len(known) > maxListed:
		return "; known are " + strings.Join(known[:maxListed], ", ") + " and others"
	default:
		return "; known are " + strings.Join(known, ", ")
	}
}

// nearest is the element of known that name is probably a misspelling of, or
// empty.
func nearest(name string, known []string) string {
	best, least := "", maxCompared
	for _, candidate := range known {
		if distance, near := misspelling(name, candidate); near && distance < least {
			best, least = candidate, distance
		}
	}
	return best
}

// nearestVariable is nearest for names of variables. The sections that two
// variables share make them no more alike.
func nearestVariable(name string, known []string) string {
	best, least := "", maxCompared
	for _, candidate := range known {
		from := sharedSections(name, candidate)
		if distance, near := misspelling(name[from:], candidate[from:]); near && distance < least {
			best, least = candidate, distance
		}
	}
	return best
}

// sharedSections is the length of the sections that begin both a and b.
func sharedSections(a, b string) int {
	length := 0
	for {
		end := strings.Index(a[length:], "__")
		if end < 0 || !strings.HasPrefix(b[length:], a[length:length+end+2]) {
			return length
		}
		length += end + 2
	}
}

// misspelling is how far name is from known, and whether that is near enough
// for a slip. Case, hyphens and underscores count for nothing.
func misspelling(name, known string) (distance int, near bool) {
	if len(name) > maxCompared {
		return 0, false
	}
	a, b := folded(name), folded(known)
	distance = editDistance(a, b)
	return distance, distance <= (max(len(a), len(b))+2)/3 && distance < len(b)
}

// folded is name in lower case without hyphens and underscores.
func folded(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	var before []int // the row above previous
	previous := make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(previous[j+1]+1, row[j]+1, previous[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}
