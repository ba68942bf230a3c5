package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	pluginnode "github.com/pimrelay/pimrelay/examples/plugin-node"
)

// scaffolds are the files of a new plugin: those of each language in the
// directory of its name, those of all at the top.
//
//go:embed scaffold
var scaffolds embed.FS

// languages are those that a plugin can be begun in.
var languages = []string{"go", "node"}

// newPlugin is a plugin that is about to be written.
type newPlugin struct {
	Name string
	// Go is the version of the language, Version that of this module, and
	// SDK its directory or empty: for a plugin in Go.
	Go, Version, SDK string
	// Next are the commands to type next.
	Next []string

	language, directory string
}

func newPluginNewCommand() *cobra.Command {
	var p newPlugin
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a forwarder plugin: a small one that works, in Go or for Node.js",
		Args:  oneArg("NAME for the plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			if err := p.check(version()); err != nil {
				return err
			}
			files, err := p.files()
			if err != nil {
				return err
			}
			if err := p.write(files); err != nil {
				return err
			}
			names := slices.Sorted(maps.Keys(files))
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n\nNext:\n\n    %s\n\nWhat is yours to write is marked YOURS in %s; README.md says the rest.\n",
				p.directory, strings.Join(names, " "), strings.Join(append([]string{"cd " + quoted(p.directory)}, p.Next...), "\n    "), p.yours())
			return err
		},
	}
	cmd.Flags().StringVar(&p.language, "lang", "go", "language: "+strings.Join(languages, " or "))
	cmd.Flags().StringVar(&p.directory, "dir", "", "directory to write, new or empty (default NAME)")
	cmd.Flags().StringVar(&p.SDK, "sdk", "", "directory of pimrelay's source, which a plugin in Go uses instead of a release")
	return cmd
}

var (
	pluginName      = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	releasedVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)
)

// longestPluginName keeps names short enough for tables and for file names.
const longestPluginName = 40

// goVersion is what go.mod of a new plugin says: what this module itself needs.
const goVersion = "1.26.0"

// check refuses what cannot be, and fills in what is derived.
func (p *newPlugin) check(version string) error {
	if !pluginName.MatchString(p.Name) || len(p.Name) > longestPluginName {
		return usageError{fmt.Errorf("a plugin's NAME is up to %d lower-case letters, digits and single hyphens, and begins with a letter, such as shop or google-chat (got %q)", longestPluginName, p.Name)}
	}
	if p.directory == "" {
		p.directory = p.Name
	}
	verify := "pimrelay plugin verify --config verify.yaml -- "
	switch p.language {
	case "go":
		p.Go = goVersion
		p.Next = []string{"go mod tidy", "go test ./...", "go build -o " + p.Name + " .", verify + "./" + p.Name}
		return p.checkSDK(version)
	case "node":
		p.Next = []string{"npm ci --ignore-scripts", verify + "node main.js"}
		if p.SDK != "" {
			return usageError{errors.New("--sdk is for a plugin in Go: one for Node.js needs nothing of pimrelay's source")}
		}
		return nil
	}
	return usageError{fmt.Errorf("--lang is %s (got %q); for another language, examples/plugin-node shows the contract", strings.Join(languages, " or "), p.language)}
}

// checkSDK finds out which version of this module the plugin needs.
func (p *newPlugin) checkSDK(version string) error {
	if p.SDK == "" {
		if !releasedVersion.MatchString(version) {
			return usageError{fmt.Errorf("this pimrelay (%s) is no release that a plugin could require: say with --sdk DIR where pimrelay's source is", version)}
		}
		p.Version = version
		return nil
	}
	directory, err := filepath.Abs(p.SDK)
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(directory, "go.mod"))
	if err != nil || !bytes.HasPrefix(mod, []byte("module github.com/pimrelay/pimrelay\n")) {
		return usageError{fmt.Errorf("--sdk: %s is not the directory of pimrelay's source", directory)}
	}
	p.Version, p.SDK = "v0.0.0", quoted(directory)
	return nil
}

// quoted is text as it is or, if it has characters that separate words, in
// quotes.
func quoted(text string) string {
	if strings.ContainsAny(text, " \t\"'`$\\()") {
		return strconv.Quote(text)
	}
	return text
}

// yours is the file that the author writes.
func (p *newPlugin) yours() string {
	if p.language == "node" {
		return "forwarder.js"
	}
	return "forwarder.go"
}

// files are the plugin's files by name.
func (p *newPlugin) files() (map[string][]byte, error) {
	files := make(map[string][]byte)
	if p.language == "node" {
		if err := p.addContract(files); err != nil {
			return nil, err
		}
	}
	for _, directory := range []string{"scaffold", path.Join("scaffold", p.language)} {
		entries, err := scaffolds.ReadDir(directory)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			name, ok := strings.CutSuffix(entry.Name(), ".tmpl")
			if !ok {
				continue // another language's
			}
			parsed, err := template.ParseFS(scaffolds, path.Join(directory, entry.Name()))
			if err != nil {
				return nil, err
			}
			var out bytes.Buffer
			if err := parsed.Execute(&out, p); err != nil {
				return nil, err
			}
			if name == "gitignore" {
				name = ".gitignore" // which would not be embedded
			}
			files[name] = out.Bytes()
		}
	}
	return files, nil
}

// addContract adds what all plugins for Node.js have in common, under the new
// plugin's name.
func (p *newPlugin) addContract(files map[string][]byte) error {
	entries, err := fs.ReadDir(pluginnode.Files, ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		data, err := pluginnode.Files.ReadFile(entry.Name())
		if err != nil {
			return err
		}
		if path.Ext(entry.Name()) == ".json" {
			data = bytes.ReplaceAll(data, []byte(`"pimrelay-plugin-node"`), []byte(strconv.Quote(p.Name)))
		}
		files[entry.Name()] = data
	}
	return nil
}

// write writes the files into a directory that is new or empty.
func (p *newPlugin) write(files map[string][]byte) error {
	if err := os.MkdirAll(p.directory, 0o777); err != nil {
		return err
	}
	found, err := os.ReadDir(p.directory)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return usageError{fmt.Errorf("%s is not empty (it has %s): choose another directory with --dir", p.directory, found[0].Name())}
	}
	for name, data := range files {
		mode := fs.FileMode(0o666)
		if name == "main.js" {
			mode = 0o777
		}
		if err := os.WriteFile(filepath.Join(p.directory, name), data, mode); err != nil {
			return err
		}
	}
	return nil
}
