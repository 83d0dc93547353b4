// A kernel that touches memory which is not there ends the process, as the operating system wants it. Before that, this says
// which kernel it was, and which of its threads. Under a sanitizer it keeps quiet: the sanitizer says more.
#pragma once

#include <memory>

namespace emu {

// While it lives, crashes of kernels on this OS thread are reported, also those for want of stack.
class CrashReports {
  public:
    CrashReports();
    ~CrashReports();
    CrashReports(const CrashReports&) = delete;
    CrashReports& operator=(const CrashReports&) = delete;

  private:
    // For the handler to run on, where the OS thread has none.
    std::unique_ptr<char[]> stack_;
};

}  // namespace emu
