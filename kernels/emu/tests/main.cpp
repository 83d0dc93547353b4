// Runs all cases of a build, each in a child, and counts. Arguments: BUILD [CASE].
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "harness.h"

namespace harness {
namespace {

std::map<std::string, Case>& cases() {
    static std::map<std::string, Case> known;
    return known;
}

}  // namespace

Registered::Registered(const Case& known) { cases().emplace(known.name, known); }

void expect(bool condition, const char* format, ...) {
    if (condition) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    _Exit(1);
}

namespace {

const char* expected_in(const std::string& build, const Expected& expected) {
    if (build == "address") {
        return expected.address;
    }
    return build == "thread" ? expected.thread : expected.plain;
}

// What a child says that runs one case.
std::string output_of(const std::string& build, const std::string& name) {
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    expect(length > 0, "this program does not find itself");
    self[length] = '\0';
    const std::string command = "'" + std::string(self) + "' " + build + " " + name + " 2>&1";
    FILE* const pipe = popen(command.c_str(), "r");
    expect(pipe != nullptr, "no process can be started");
    std::string output;
    char piece[4096];
    while (size_t got = fread(piece, 1, sizeof piece, pipe)) {
        output.append(piece, got);
    }
    pclose(pipe);
    return output;
}

int run_case(const std::string& name) {
    const auto found = cases().find(name);
    expect(found != cases().end(), "there is no case %s", name.c_str());
    found->second.run();
    printf("%s\n", PASSED);
    return 0;
}

int run_all(const std::string& build) {
    int passed = 0;
    int failed = 0;
    for (const auto& [name, known] : cases()) {
        const char* const expected = expected_in(build, known.expected);
        if (expected == nullptr) {
            continue;
        }
        const std::string output = output_of(build, name);
        const bool as_expected = output.find(expected) != std::string::npos;
        as_expected ? passed++ : failed++;
        printf("%s  %s\n", as_expected ? "ok  " : "FAIL", name.c_str());
        if (!as_expected) {
            printf("expected: %s\n%s\n", expected, output.c_str());
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace harness

int main(int count, char** arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: %s plain|address|thread [CASE]\n", arguments[0]);
        return 2;
    }
    return count > 2 ? harness::run_case(arguments[2]) : harness::run_all(arguments[1]);
}
