package sdk

import "strings"

// Fault is one thing that is wrong in a configuration.
type Fault struct {
	// Field is the path of the key below the section, with dots:
	// "signing.scheme". Empty means the section itself.
	Field string
	// Problem says what is wrong and what would be right, in lower case:
	// "must be above 0 (got -1)". It holds no secret.
	Problem string
}

// Error is the field and the problem.
func (f Fault) Error() string {
	if f.Field == "" {
		return f.Problem
	}
	return f.Field + ": " + f.Problem
}

// Faults are all the things wrong in a configuration, so that a person sees
// them together. A Faults with no element is no error: return Err().
type Faults []Fault

// Add appends one fault.
func (f *Faults) Add(field, problem string) { *f = append(*f, Fault{Field: field, Problem: problem}) }

// Within returns the faults with section put before each field.
func (f Faults) Within(section string) Faults {
	out := make(Faults, len(f))
	for i, fault := range f {
		out[i] = fault
		if fault.Field == "" {
			out[i].Field = section
		} else {
			out[i].Field = section + "." + fault.Field
		}
	}
	return out
}

// Err is f as an error, or nil if there is no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Error is one line a fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}
