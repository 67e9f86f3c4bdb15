#include "codegen/disk_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "codegen/codegen.h"
#include "lohe/error.h"

namespace lohe::codegen {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'L', 'O', 'H', 'E', 'K', 'R', 'N', '1'};
constexpr const char* kExtension = ".kernel";
/// The directory is scanned after this share of the bound was written by this process.
constexpr uint64_t kScanShare = 16;
constexpr auto kTouchAfter = std::chrono::minutes(10);
constexpr auto kAbandonedAfter = std::chrono::hours(1);

/// What an entry starts with; then key and object. Fixed-width, little-endian as the machine.
struct Header {
  char magic[8];
  uint64_t key_bytes;
  uint64_t object_bytes;
  Hash128 checksum;
};
static_assert(sizeof(Header) == 40);

Hash128 checksum(std::string_view key, std::string_view object) {
  return Hasher().update(key).update(object).digest();
}

/// Code is run from here: nobody else may be able to put it here.
std::string unsafe_reason(const fs::path& directory) {
  struct stat status;
  if (::stat(directory.c_str(), &status) != 0) return {};
  if (!S_ISDIR(status.st_mode)) return "it is not a directory";
  if (status.st_uid != ::geteuid() && status.st_uid != 0) return "it belongs to another user";
  if ((status.st_mode & S_IWOTH) != 0) return "every user may write to it";
  return {};
}

/// A number below `n` that differs from process to process: those that write little take turns in scanning
/// the directory, which takes a fifth of a second where it holds 50,000 kernels.
uint64_t phase(uint64_t n) {
  const auto time = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  return Hasher().update(time).update(static_cast<uint64_t>(::getpid())).digest().first %
         std::max<uint64_t>(n, 1);
}

}  // namespace

DiskCache::DiskCache(fs::path directory, uint64_t max_bytes)
    : directory_(std::move(directory)),
      max_bytes_(max_bytes),
      written_since_scan_(phase(max_bytes / kScanShare)) {}

fs::path DiskCache::path_of(const std::string& key) const {
  return directory_ / (hash_bytes(key).hex() + kExtension);
}

void DiskCache::disable(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!writable_) return;
    writable_ = false;
  }
  log_warning_once("kernel-cache", "the kernel cache in '", directory_.string(), "' is not written: ", why,
                   ". Kernels are compiled in every process; LOHE_CACHE_DIR names another folder.");
}

bool DiskCache::usable_for_reading() {
  if (directory_.empty()) return false;
  std::string why;
  {
    const std::lock_guard lock(mutex_);
    if (checked_) return readable_;
    why = unsafe_reason(directory_);
    checked_ = true;
    readable_ = why.empty();
  }
  if (!why.empty()) disable(why);
  return why.empty();
}

std::optional<std::string> DiskCache::load(const std::string& key) {
  if (!usable_for_reading()) return std::nullopt;
  const fs::path path = path_of(key);
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  std::string content;
  try {
    content = read_file(path);
  } catch (const Error& error) {
    log(LogLevel::kDebug, "kernel cache: ", error.message());
    return std::nullopt;
  }
  Header header;
  if (content.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, content.data(), sizeof header);
  const std::string_view body = std::string_view(content).substr(sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.key_bytes != key.size() ||
      header.key_bytes > body.size() || header.object_bytes != body.size() - header.key_bytes) {
    return std::nullopt;
  }
  const std::string_view object = body.substr(key.size());
  if (body.substr(0, key.size()) != key || checksum(key, object) != header.checksum) return std::nullopt;
  // The time of modification stands for the last use; written rarely, because most file systems write it out.
  const auto age = std::chrono::system_clock::now() - std::chrono::system_clock::from_time_t(status.st_mtime);
  if (age > kTouchAfter) ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  return std::string(object);
}

void DiskCache::store(const std::string& key, const std::string& object) {
  if (!usable_for_reading()) return;
  bool scan = false;
  {
    const std::lock_guard lock(mutex_);
    if (!writable_) return;
    written_since_scan_ += object.size() + key.size();
    scan = written_since_scan_ >= max_bytes_ / kScanShare;
    if (scan) written_since_scan_ = 0;
  }
  std::error_code failed;
  if (fs::create_directories(directory_, failed)) {
    fs::permissions(directory_, fs::perms::owner_all, failed);
  }
  if (failed) return disable(failed.message());
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.key_bytes = key.size();
  header.object_bytes = object.size();
  header.checksum = checksum(key, object);
  try {
    AtomicFile file(path_of(key));
    file.write(std::as_bytes(std::span(&header, 1)));
    file.write(key);
    file.write(object);
    file.commit();
  } catch (const Error& error) {
    return disable(error.message());
  }
  if (scan) evict();
}

/// Removes the entries that were not used for longest until three quarters of the bound are left, and what
/// killed writers left behind. Other processes may do the same meanwhile: a file that is gone already is no
/// failure.
void DiskCache::evict() {
  struct Entry {
    fs::path path;
    fs::file_time_type used;
    uint64_t bytes;
  };
  std::vector<Entry> entries;
  uint64_t total = 0;
  std::error_code failed;
  const auto now = fs::file_time_type::clock::now();
  for (fs::directory_iterator it(directory_, failed), end; !failed && it != end; it.increment(failed)) {
    std::error_code gone;
    const fs::path& path = it->path();
    const auto used = it->last_write_time(gone);
    const uint64_t bytes = gone ? 0 : it->file_size(gone);
    if (gone) continue;
    if (path.extension() == kExtension) {
      entries.push_back({path, used, bytes});
      total += bytes;
    } else if (path.extension() == ".tmp" && now - used > kAbandonedAfter) {
      fs::remove(path, gone);
    }
  }
  if (total <= max_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= max_bytes_ / 4 * 3) break;
    std::error_code gone;
    fs::remove(entry.path, gone);
    total -= entry.bytes;
  }
}

}  // namespace lohe::codegen
