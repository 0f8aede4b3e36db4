// SPDX-License-Identifier: GPL-2.0-only

package store

import "context"

// Lock holds a named lock of the store, for what is shared but neither an entry
// nor a slot (an apt state directory). The caller gives it back by calling
// the returned function.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return s.lock(ctx, name)
}
