package templates

import (
	"cmp"
	"path"
	"strconv"

	"github.com/unitgen/unitgen/internal/app"
)

// decideBind has the program started by a launcher, which becomes the program, under a process that
// answers its bind(). A program that asks its environment for a port gets the app's.
func (v *values) decideBind(a app.App) {
	if !a.BindAnswered() {
		return
	}
	v.BindAnswered = true
	v.Identifier = app.RawWord(path.Base(a.Command[0]))
	options := " --kind=" + string(cmp.Or(a.Kind, app.KindBind))
	port := int(a.Listen[0].Port)
	if a.ProgramPort > 0 {
		port = a.ProgramPort
		options += " --program-port=" + strconv.Itoa(port)
	}
	if ignored, ok := a.Property("IgnoreSIGPIPE"); ok && !app.Truth(ignored) {
		options += " --sigpipe"
	}
	v.ExecStart = v.Lbshim + " exec " + string(a.Name) + " %i" + options + v.UserOption + " -- " + app.ExecWords(a.Command)
	// Before the app's own, which count.
	v.Environment = append([]string{app.QuoteAssignment(app.Assignment{Key: "PORT", Value: strconv.Itoa(port)})}, v.Environment...)
}
