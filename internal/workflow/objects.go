package workflow

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Names of object types. They hold spaces, so that no expression can mean one by accident.
const (
	objectInput     = "the input"
	objectContracts = "the contracts"
)

// objects are the types of JSON objects whose names are known. It is a types.Provider: what it does not know is asked
// of CEL's own.
type objects struct {
	base   types.Provider
	fields map[string]map[string]*types.Type
	missed map[string]string // a field that was asked for in vain → the object type

	// dropped are the names that a set leaves out when the optional that stands there is empty.
	dropped map[string]map[string]bool

	// enums are the values of the fields that have one of some texts.
	enums map[string]map[string][]string

	// taken is how often a name was asked for that was taken.
	taken map[string]int

	// outer is the object type that has the fields which one does not have itself.
	outer map[string]string
}

func newObjects() *objects {
	return &objects{
		base:   baseEnv().CELTypeProvider(),
		fields: map[string]map[string]*types.Type{}, missed: map[string]string{},
		dropped: map[string]map[string]bool{}, enums: map[string]map[string][]string{}, outer: map[string]string{},
		taken: map[string]int{},
	}
}

// objectNameMax bounds the names of object types, in bytes: an object may stand in thousands with very long names.
const objectNameMax = 256

// nameInside is the name of the object type of what stands under a key of another.
func nameInside(name, key string) string {
	if len(name) >= objectNameMax {
		return name
	}
	return strings.ToValidUTF8(name+" "+key[:min(len(key), objectNameMax)], "")
}

// define makes an object type; of a name that is taken, another one with a number behind it.
func (o *objects) define(name string) (*types.Type, map[string]*types.Type) {
	free := name
	for o.fields[free] != nil {
		o.taken[name]++
		free = name + " (" + strconv.Itoa(o.taken[name]+1) + ")"
	}
	fields := map[string]*types.Type{}
	o.fields[free] = fields
	return types.NewObjectType(free), fields
}

// known are the fields of an object type, or nil.
func (o *objects) known(t *types.Type) []string {
	return slices.Sorted(maps.Keys(o.fields[t.TypeName()]))
}

// namedIn reports whether a message of the checker speaks of one of these types.
func (o *objects) namedIn(message string) bool {
	for name := range o.fields {
		if strings.Contains(message, name) {
			return true
		}
	}
	return false
}

// EnumValue implements types.Provider.
func (o *objects) EnumValue(name string) ref.Val { return o.base.EnumValue(name) }

// FindIdent implements types.Provider.
func (o *objects) FindIdent(name string) (ref.Val, bool) { return o.base.FindIdent(name) }

// FindStructType implements types.Provider. Of CEL's own structs (protocol buffers) none is reachable.
func (o *objects) FindStructType(name string) (*types.Type, bool) {
	if _, ok := o.fields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return nil, false
}

// FindStructFieldNames implements types.Provider.
func (o *objects) FindStructFieldNames(name string) ([]string, bool) {
	fields, ok := o.fields[name]
	return slices.Collect(maps.Keys(fields)), ok
}

// FindStructFieldType implements types.Provider.
func (o *objects) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	for of := name; of != ""; of = o.outer[of] {
		if t, ok := o.fields[of][field]; ok {
			return &types.FieldType{Type: t}, true
		}
	}
	o.missed[field] = name
	return nil, false
}

// NewValue implements types.Provider.
func (o *objects) NewValue(name string, _ map[string]ref.Val) ref.Val {
	return types.NewErr("%q cannot be made", name)
}
