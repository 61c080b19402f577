package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// dataSource is one entry of a data source file, as Grafana's API shows it.
type dataSource struct {
	UID    string `yaml:"uid" json:"uid"`
	Name   string `yaml:"name" json:"name"`
	Type   string `yaml:"type" json:"type"`
	Access string `yaml:"access" json:"access"`
	URL    string `yaml:"url" json:"url"`
}

// dashboard is one dashboard file: its JSON as it is, and what lists show.
type dashboard struct {
	uid, title string
	model      json.RawMessage
}

// provisioned is everything that was provisioned.
type provisioned struct {
	sources    []dataSource
	dashboards []dashboard
}

// readProvisioning reads datasources/*.yaml, dashboards/*.yaml and the
// dashboards in the folders that the latter name. A file that cannot be read
// is an error, as it is to Grafana.
func readProvisioning(root string) (provisioned, error) {
	var p provisioned
	err := eachYAML(filepath.Join(root, "datasources"), func(data []byte) error {
		var file struct{ Datasources []dataSource }
		err := yaml.Unmarshal(data, &file)
		p.sources = append(p.sources, file.Datasources...)
		return err
	})
	if err != nil {
		return p, err
	}
	err = eachYAML(filepath.Join(root, "dashboards"), func(data []byte) error {
		var file struct {
			Providers []struct{ Options struct{ Path string } }
		}
		if err := yaml.Unmarshal(data, &file); err != nil {
			return err
		}
		for _, provider := range file.Providers {
			list, err := readDashboards(provider.Options.Path)
			if err != nil {
				return err
			}
			p.dashboards = append(p.dashboards, list...)
		}
		return nil
	})
	return p, err
}

func eachYAML(dir string, read func([]byte) error) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := read(data); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

func readDashboards(dir string) ([]dashboard, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var list []dashboard
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var head struct{ UID, Title string }
		if err := json.Unmarshal(data, &head); err != nil {
			return nil, fmt.Errorf("read dashboard %s: %w", name, err)
		}
		list = append(list, dashboard{head.UID, head.Title, data})
	}
	return list, nil
}
