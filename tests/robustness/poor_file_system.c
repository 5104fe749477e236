/* For LD_PRELOAD: a file system without locks, shared maps, modes and fsync, like some network file
 * systems. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

int flock(int file, int operation) {
  errno = ENOSYS;
  return -1;
}

int fsync(int file) {
  errno = EINVAL;
  return -1;
}

int chmod(const char *path, mode_t mode) {
  errno = EPERM;
  return -1;
}

int link(const char *from, const char *to) {
  errno = EPERM;
  return -1;
}

static void *map(const char *name, void *address, size_t length, int access, int flags, int file,
                 off_t offset) {
  if (file >= 0 && (flags & MAP_TYPE) == MAP_SHARED) {
    errno = ENODEV;
    return MAP_FAILED;
  }
  void *(*usual)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
  return usual(address, length, access, flags, file, offset);
}

void *mmap(void *address, size_t length, int access, int flags, int file, off_t offset) {
  return map("mmap", address, length, access, flags, file, offset);
}

void *mmap64(void *address, size_t length, int access, int flags, int file, off_t offset) {
  return map("mmap64", address, length, access, flags, file, offset);
}
