// Memory for device allocations. Large ones read as 0xFF from the start but take no room until they are written.
#pragma once

#include <cstddef>

void* take_fresh(size_t bytes);
void give_back(void* address, size_t bytes);
