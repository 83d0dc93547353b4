// Floats 0, 1, 2 ... on the heap, aligned as device memory is, and guarded by the address sanitizer.
#pragma once

#include <cstdlib>
#include <memory>

class Floats {
  public:
    explicit Floats(int count) : floats_(static_cast<float*>(aligned_alloc(256, sizeof(float) * count)), free) {
        for (int at = 0; at < count; at++) {
            floats_.get()[at] = static_cast<float>(at);
        }
    }

    float* data() const { return floats_.get(); }

  private:
    std::unique_ptr<float, void (*)(void*)> floats_;
};
