// SPDX-License-Identifier: GPL-2.0-only

// Package gitenv keeps git where it is told to look, whatever the environment
// that nftvm was started in: a hook of git, for instance, sets these variables.
package gitenv

// Elsewhere are the variables by which git would look at another repository, or
// show another diff.
var Elsewhere = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR",
	"GIT_PREFIX", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS",
}
