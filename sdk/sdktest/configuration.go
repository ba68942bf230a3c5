package sdktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/pimrelay/pimrelay/sdk"
	"github.com/pimrelay/pimrelay/sdk/wire"
)

var configurationCases = []Case{
	{"configuration", "accepts its configuration, each time anew", configuration},
	{"description", "describes itself well: name, limits, a JSON Schema that the configuration fits", description},
	{"empty-configuration", "survives a configuration that is empty, null or absent", emptyConfiguration},
	{"unknown-key", "refuses a key that it does not know, and names it", unknownKey},
	{"wrong-types", "refuses values of the wrong type, and names the field", wrongTypes},
	{"faulty-configurations", "refuses the faulty configurations that its author knows, and names the field", faultyConfigurations},
	{"secrets", "shows no secret of its configuration in a fault or a reason", secrets},
}

func configuration(ctx context.Context, t *trial) error {
	for range 2 {
		i, err := t.start(ctx)
		if err != nil {
			return err
		}
		if err := t.shut(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func description(ctx context.Context, t *trial) error {
	young, err := t.fresh(ctx)
	if err != nil {
		return err
	}
	before := wire.Description{}
	_, remote := young.Forwarder.(Remote)
	if !remote {
		if before, err = call(ctx, "Describe", func() wire.Description { return sayOnly(young.Forwarder) }); err != nil {
			return err
		}
	}
	i, err := t.start(ctx)
	if err != nil {
		return err
	}
	d := i.description
	if !remote && !reflect.DeepEqual(before.Description, d.Description) {
		return errors.New("it describes itself differently before and after Configure")
	}
	again, err := t.start(ctx)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(again.description, d) {
		return errors.New("two forwarders with the same configuration describe themselves differently")
	}
	return t.checkDescription(d)
}

// sayOnly is what a forwarder says of itself that is not configured.
func sayOnly(f sdk.Forwarder) (d wire.Description) {
	if describer, ok := f.(sdk.Describer); ok {
		d.Description = describer.Describe()
	}
	return d
}

func (t *trial) checkDescription(d wire.Description) error {
	for what, text := range map[string]string{"name": d.Name, "version": d.Version} {
		if len(text) > 64 || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("the %s must be a short line (got %q)", what, text)
		}
	}
	if d.Limits.Events < 0 || d.Limits.Bytes < 0 {
		return fmt.Errorf("the batch limits must not be negative (got %+v)", d.Limits)
	}
	s, err := readSchema(d.ConfigSchema)
	if err != nil {
		return err
	}
	if s == nil {
		t.note = "it has no JSON Schema: the relay cannot check its configuration, nor show its keys"
		return nil
	}
	if err := s.check(""); err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(t.Config, &value); err != nil {
		return fmt.Errorf("the suite's configuration: %w", err)
	}
	if problem := s.misfit("", value); problem != "" {
		return fmt.Errorf("it accepts a configuration that does not fit its JSON Schema: %s", problem)
	}
	if d.Name == "" {
		t.note = "it has no name: the relay shows that of its program"
	}
	return nil
}

func emptyConfiguration(ctx context.Context, t *trial) error {
	accepted := 0
	for _, config := range []json.RawMessage{nil, {}, json.RawMessage("{}"), json.RawMessage("null")} {
		_, refusal, err := t.configure(ctx, config)
		if err != nil {
			return fmt.Errorf("with %q: %w", config, err)
		}
		if refusal == nil {
			accepted++
			continue
		}
		if err := asFaults(refusal, nil); err != nil {
			return fmt.Errorf("with %q: %w", config, err)
		}
	}
	if accepted == 0 {
		t.note = "it needs a configuration"
	}
	return nil
}

// mustRefuse wants the configuration to be refused with a fault that names the
// field, and none that shows one of the secrets.
func (t *trial) mustRefuse(ctx context.Context, f Faulty) error {
	_, refusal, err := t.configure(ctx, f.Config)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	if refusal == nil {
		return fmt.Errorf("%s: it is accepted", f.Name)
	}
	for _, secret := range f.Secrets {
		if strings.Contains(refusal.Error(), secret) {
			return fmt.Errorf("%s: the refusal shows a secret", f.Name)
		}
	}
	var faults sdk.Faults
	if err := asFaults(refusal, &faults); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	for _, fault := range faults {
		if names(fault, f.Field) {
			return nil
		}
	}
	return fmt.Errorf("%s: no fault names %q: %s", f.Name, f.Field, oneLine(faults.Error()))
}

// asFaults puts what a refusal consists of into faults, which may be nil.
func asFaults(refusal error, faults *sdk.Faults) error {
	if faults == nil {
		faults = new(sdk.Faults)
	}
	if !errors.As(refusal, faults) {
		return fmt.Errorf("it is refused with another error than sdk.Faults: %s", oneLine(refusal.Error()))
	}
	return nil
}

// names reports whether a fault concerns the field. One that concerns the
// section in which it stands may name it in its text.
func names(fault sdk.Fault, field string) bool {
	rest, ok := strings.CutPrefix(fault.Field, field)
	if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
		return true
	}
	section, key := "", field
	if dot := strings.LastIndexByte(field, '.'); dot >= 0 {
		section, key = field[:dot], field[dot+1:]
	}
	return fault.Field == section && strings.Contains(fault.Problem, key)
}

func unknownKey(ctx context.Context, t *trial) error {
	const key = "sdktest_unknown"
	config, err := with(t.Config, true, key)
	if err != nil {
		return err
	}
	s, err := t.schema(ctx)
	if err != nil {
		return err
	}
	if s != nil && s.AdditionalProperties != nil && !s.AdditionalProperties.nothing {
		return leftOut("its JSON Schema allows any key")
	}
	return t.mustRefuse(ctx, Faulty{Name: "an unknown key", Config: config, Field: key})
}

// schema is the forwarder's; nil if it has none.
func (t *trial) schema(ctx context.Context) (*schema, error) {
	i, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	s, err := readSchema(i.description.ConfigSchema)
	if err != nil {
		return nil, err
	}
	return s, t.shut(ctx, i)
}

const noSchema = leftOut("needs a JSON Schema, and the forwarder gives none")

func wrongTypes(ctx context.Context, t *trial) error {
	s, err := t.schema(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		return noSchema
	}
	tried := 0
	for _, f := range s.fields() {
		value, ok := f.schema.wrongValue()
		if !ok {
			continue
		}
		config, err := with(t.Config, value, f.path...)
		if err != nil {
			return err
		}
		path := strings.Join(f.path, ".")
		faulty := Faulty{Name: fmt.Sprintf("%s of the wrong type (%s)", path, kinds(value)[0]), Config: config, Field: path}
		if f.schema.secret() {
			faulty.Secrets = []string{secretMarker}
		}
		if err := t.mustRefuse(ctx, faulty); err != nil {
			return err
		}
		tried++
	}
	if tried == 0 {
		return leftOut("its JSON Schema gives no key a type")
	}
	t.note = fmt.Sprintf("tried with %d keys", tried)
	return nil
}

func faultyConfigurations(ctx context.Context, t *trial) error {
	if len(t.Faulty) == 0 {
		return leftOut("its author has given none")
	}
	for _, f := range t.Faulty {
		if err := t.mustRefuse(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func secrets(ctx context.Context, t *trial) error {
	s, err := t.schema(ctx)
	if err != nil {
		return err
	}
	if s == nil {
		return noSchema
	}
	tried := 0
	for _, f := range s.fields() {
		if !f.schema.secret() {
			continue
		}
		tried++
		config, err := with(t.Config, f.schema.marked(), f.path...)
		if err != nil {
			return err
		}
		if err := t.keeps(ctx, config, strings.Join(f.path, ".")); err != nil {
			return err
		}
	}
	if tried == 0 {
		return leftOut(`its JSON Schema marks no secret ("writeOnly": true)`)
	}
	return nil
}

// keeps looks for the marker, which the configuration has as a secret in field,
// in what a forwarder says about a mistake beside it and about a destination
// that fails.
func (t *trial) keeps(ctx context.Context, config json.RawMessage, field string) error {
	const key = "sdktest_unknown"
	beside, err := with(config, true, key)
	if err != nil {
		return err
	}
	_, refusal, err := t.configure(ctx, beside)
	if err != nil {
		return err
	}
	if refusal != nil && strings.Contains(refusal.Error(), secretMarker) {
		return fmt.Errorf("a fault shows the value of %s", field)
	}
	i, refusal, err := t.configure(ctx, config)
	switch {
	case err != nil:
		return err
	case refusal != nil && strings.Contains(refusal.Error(), secretMarker):
		return fmt.Errorf("a fault shows the value of %s", field)
	case refusal != nil || t.Destination == nil:
		return nil
	}
	for _, b := range []Behaviour{Reject, Fail, ResetBefore, Gone} {
		if t.behave(b) != nil {
			continue // this destination cannot
		}
		outcomes, err := t.deliver(ctx, i, newEvents(1))
		if err != nil {
			return err
		}
		if strings.Contains(outcomes[0].Reason+outcomes[0].Answer, secretMarker) {
			return fmt.Errorf("an outcome shows the value of %s when the destination can %s", field, b)
		}
	}
	return t.behave(Accept)
}
