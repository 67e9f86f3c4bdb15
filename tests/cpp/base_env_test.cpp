#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "base/env.h"
#include "base/log.h"
#include "lohe/error.h"

namespace lohe {
namespace {

template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kRuntime, "nothing was thrown");
}

class Env : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"LOHE_NUM_THREADS", "LOHE_DEBUG_FILL", "LOHE_KERNELS", "LOHE_CACHE_DIR"})
      unsetenv(name);
  }
};

TEST_F(Env, TheTableIsSortedAndComplete) {
  const auto rows = env_variables();
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](auto& a, auto& b) { return a.name < b.name; }));
  for (const EnvVariable& row : rows) {
    EXPECT_TRUE(row.name.starts_with("LOHE_"));
    EXPECT_FALSE(row.meaning.empty());
    EXPECT_FALSE(row.default_text.empty());
    EXPECT_EQ(row.type == EnvType::kChoice, !row.choices.empty());
  }
}

TEST_F(Env, UnsetAndEmptyGiveTheDefault) {
  EXPECT_EQ(env_int("LOHE_NUM_THREADS", 7, 1, 10), 7);
  setenv("LOHE_NUM_THREADS", "", 1);
  EXPECT_EQ(env_int("LOHE_NUM_THREADS", 7, 1, 10), 7);
  EXPECT_EQ(env_string("LOHE_CACHE_DIR", "here"), "here");
  EXPECT_TRUE(env_bool("LOHE_DEBUG_FILL", true));
  EXPECT_EQ(env_choice("LOHE_KERNELS", "llvm"), "llvm");
}

TEST_F(Env, ValuesAreParsed) {
  setenv("LOHE_NUM_THREADS", "3", 1);
  EXPECT_EQ(env_int("LOHE_NUM_THREADS", 7, 1, 10), 3);
  for (const char* word : {"1", "true", "YES", "On"}) {
    setenv("LOHE_DEBUG_FILL", word, 1);
    EXPECT_TRUE(env_bool("LOHE_DEBUG_FILL", false)) << word;
  }
  for (const char* word : {"0", "False", "no", "off"}) {
    setenv("LOHE_DEBUG_FILL", word, 1);
    EXPECT_FALSE(env_bool("LOHE_DEBUG_FILL", true)) << word;
  }
  setenv("LOHE_KERNELS", "Interpreter", 1);
  EXPECT_EQ(env_choice("LOHE_KERNELS", "llvm"), "interpreter");
}

TEST_F(Env, BadValuesNameVariableValueAndWhatIsAccepted) {
  for (const char* text : {"0", "11", "3x", " 3", "9999999999999999999999"}) {
    setenv("LOHE_NUM_THREADS", text, 1);
    const Error error = error_of([] { env_int("LOHE_NUM_THREADS", 7, 1, 10); });
    EXPECT_EQ(error.kind(), ErrorKind::kValue);
    EXPECT_NE(error.message().find("LOHE_NUM_THREADS='" + std::string(text) + "'"), std::string::npos);
    EXPECT_NE(error.message().find("from 1 to 10"), std::string::npos);
  }
  setenv("LOHE_DEBUG_FILL", "maybe", 1);
  EXPECT_EQ(error_of([] { env_bool("LOHE_DEBUG_FILL", false); }).kind(), ErrorKind::kValue);
  setenv("LOHE_KERNELS", "gcc", 1);
  const Error error = error_of([] { env_choice("LOHE_KERNELS", "llvm"); });
  EXPECT_NE(error.message().find("llvm|generated|interpreter"), std::string::npos) << error.message();
}

TEST_F(Env, NamesOutsideTheTableAreInternalErrors) {
  const Error error = error_of([] { env_bool("LOHE_NO_SUCH_NAME", false); });
  EXPECT_EQ(error.kind(), ErrorKind::kInternal);
  EXPECT_NE(error.message().find("LOHE_NO_SUCH_NAME"), std::string::npos);
  EXPECT_NE(error.message().find("report it"), std::string::npos);
}

std::string logged;

class Log : public ::testing::Test {
 protected:
  void SetUp() override {
    logged.clear();
    level_ = log_level();
    set_log_sink([](LogLevel level, const std::string& message) {
      logged += std::to_string(static_cast<int>(level)) + message + ";";
    });
  }
  void TearDown() override {
    set_log_sink(nullptr);
    set_log_level(level_);
  }

 private:
  LogLevel level_ = LogLevel::kWarning;
};

TEST_F(Log, OnlyLevelsThatAreOnAreWritten) {
  set_log_level(LogLevel::kWarning);
  log(LogLevel::kError, "a ", 1);
  log(LogLevel::kWarning, "b");
  log(LogLevel::kInfo, "c");
  EXPECT_EQ(logged, "1a 1;2b;");
  set_log_level(LogLevel::kSilent);
  log(LogLevel::kError, "d");
  EXPECT_EQ(logged, "1a 1;2b;");
}

TEST_F(Log, AWarningIsGivenOnceForEachCause) {
  set_log_level(LogLevel::kWarning);
  for (int i = 0; i < 3; ++i) {
    log_warning_once("test.first", "first ", i);
    log_warning_once("test.second", "second ", i);
  }
  EXPECT_EQ(logged, "2first 0;2second 0;");
}

TEST_F(Log, WithoutASinkMessagesGoToStandardError) {
  set_log_sink(nullptr);
  set_log_level(LogLevel::kWarning);
  ::testing::internal::CaptureStderr();
  log(LogLevel::kWarning, "to ", "stderr");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "lohe warning: to stderr\n");
}

}  // namespace
}  // namespace lohe
