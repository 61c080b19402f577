package nsenter

import (
	"fmt"
	"io/fs"
	"strings"
)

// The values of a feature. One that the driver does not let anybody change
// carries a mark, as ethtool(8) shows it.
const (
	On    = "on"
	Off   = "off"
	Fixed = " [fixed]"
)

// Feature is the path of a feature of a network interface, such as "rx-gro" of
// "eth0". Features have the kernel's names (netdev_features_strings in
// net/ethtool/common.c) and the values [On] and [Off]; they are read and
// written by the ethtool interface. By way of a helper this needs
// [Options.Program].
func Feature(device, feature string) string { return FeatureFolder + device + "/" + feature }

// FeatureFolder is where the features of all interfaces are.
const FeatureFolder = "/ethtool/"

// splitFeature returns the interface and the feature of a path.
func splitFeature(path string) (device, feature string, ok bool) {
	rest, ok := strings.CutPrefix(path, FeatureFolder)
	if !ok {
		return "", "", false
	}
	device, feature, ok = strings.Cut(rest, "/")
	return device, feature, ok && device != "" && feature != "" && !strings.Contains(feature, "/")
}

// isFeature reports whether a path is a feature's.
func isFeature(path string) bool { return strings.HasPrefix(path, FeatureFolder) }

// parseSwitch reads the value of a feature that is to be written.
func parseSwitch(path, value string) (bool, error) {
	switch value {
	case On:
		return true, nil
	case Off:
		return false, nil
	}
	return false, fmt.Errorf("write %q into %s: want %s or %s: %w", value, path, On, Off, fs.ErrInvalid)
}
