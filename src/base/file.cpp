#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/hash.h"
#include "lohe/error.h"

namespace lohe {
namespace {

[[noreturn]] void raise_io(std::string_view action, const std::filesystem::path& path, int error) {
  raise(ErrorKind::kIo, "cannot ", action, " '", path.string(), "': ", std::generic_category().message(error),
        " (errno ", error, ")");
}

/// Closes at the end of a scope.
class Descriptor {
 public:
  explicit Descriptor(int value) noexcept : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return value_; }

 private:
  int value_;
};

int open_retrying(const std::filesystem::path& path, int flags, mode_t mode = 0) {
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

/// A name next to `path` that no other process or thread picks: O_EXCL decides in the end.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const Hash128 unique = Hasher().update(::getpid()).update(now).update(counter.fetch_add(1)).digest();
  // The base name is cut so that the whole stays below the usual limit of 255 bytes.
  const std::string base = path.filename().string().substr(0, 180);
  return folder_of(path) / ("." + base + "." + unique.hex().substr(0, 16) + ".tmp");
}

/// `offset` < 0 appends at the file position.
void write_all(int descriptor, const std::filesystem::path& path, std::span<const std::byte> bytes,
               int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = offset < 0 ? ::write(descriptor, bytes.data(), bytes.size())
                                       : ::pwrite(descriptor, bytes.data(), bytes.size(), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      raise_io("write", path, errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    if (offset >= 0) offset += written;
  }
}

/// File size, after the check that it is a regular file.
size_t regular_size(int descriptor, const std::filesystem::path& path) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) raise_io("inspect", path, errno);
  if (S_ISDIR(status.st_mode)) raise_io("read", path, EISDIR);
  LOHE_CHECK_KIND(kIo, S_ISREG(status.st_mode), "cannot read '", path.string(), "': not a regular file");
  return static_cast<size_t>(status.st_size);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  // Writing through a symbolic link replaces what it points to, not the link.
  std::error_code ignored;
  if (std::filesystem::is_symlink(path_, ignored)) {
    std::filesystem::path target = std::filesystem::weakly_canonical(path_, ignored);
    if (!ignored) path_ = std::move(target);
  }
  if (std::filesystem::is_directory(path_, ignored)) raise_io("write", path_, EISDIR);
  do {
    temporary_ = temporary_name(path_);
    descriptor_ = open_retrying(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) raise_io("write", path_, errno);
  struct stat status;
  if (::stat(path_.c_str(), &status) == 0) {
    // Best effort: on a file system without permissions the new file keeps its own.
    [[maybe_unused]] const int unsupported = ::fchmod(descriptor_, status.st_mode & 07777);
  }
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(std::exchange(other.size_, 0)) {}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ < 0) return;
  ::close(std::exchange(descriptor_, -1));
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  LOHE_CHECK(descriptor_ >= 0, "write to '", path_.string(), "' after it was committed");
  write_all(descriptor_, path_, bytes, -1);
  size_ += bytes.size();
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  LOHE_CHECK(descriptor_ >= 0, "write to '", path_.string(), "' after it was committed");
  LOHE_CHECK(offset <= size_ && bytes.size() <= size_ - offset, "write_at(", offset, ") of ", bytes.size(),
             " bytes to '", path_.string(), "': only the ", size_,
             " bytes written so far can be overwritten");
  write_all(descriptor_, path_, bytes, static_cast<int64_t>(offset));
}

void AtomicFile::commit() {
  LOHE_CHECK(descriptor_ >= 0, "'", path_.string(), "' was committed before");
  try {
    if (::fsync(descriptor_) != 0) raise_io("write", path_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) raise_io("write", path_, errno);
  } catch (...) {
    discard();
    throw;
  }
  const int closed = ::close(std::exchange(descriptor_, -1));
  const int close_error = errno;
  // The rename itself lasts only once the folder is on disk; some file systems cannot sync a folder (EINVAL).
  const Descriptor folder(open_retrying(folder_of(path_), O_RDONLY | O_DIRECTORY));
  if (folder.get() >= 0 && ::fsync(folder.get()) != 0 && errno != EINVAL && errno != EROFS) {
    raise_io("sync the folder of", path_, errno);
  }
  if (closed != 0 && close_error != EINTR) raise_io("write", path_, close_error);
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file(open_retrying(path, O_RDONLY));
  if (file.get() < 0) raise_io("read", path, errno);
  std::string content(regular_size(file.get(), path), '\0');
  size_t filled = 0;
  while (true) {
    // One byte more than the size, so that files of unknown size (procfs says 0) are read to their end.
    if (filled == content.size()) content.resize(content.size() + content.size() / 2 + 4096);
    const ssize_t got = ::read(file.get(), content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) raise_io("read", path, errno);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  content.resize(filled);
  return content;
}

MappedFile::MappedFile(const std::filesystem::path& path, MapAccess access) {
  const Descriptor file(open_retrying(path, O_RDONLY));
  if (file.get() < 0) raise_io("map", path, errno);
  const size_t size = regular_size(file.get(), path);
  if (size == 0) return;  // mmap refuses empty ranges
  // Memory for copied pages is not reserved ahead: a file may be larger than what is free.
  const bool writable = access == MapAccess::kCopyOnWrite;
  void* address = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                         writable ? MAP_PRIVATE | MAP_NORESERVE : MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) raise_io("map", path, errno);
  data_ = static_cast<const std::byte*>(address);
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace lohe
