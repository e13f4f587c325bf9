#pragma once
// Catch2 of either generation: version 3 has its own folder of headers, version 2 a single one.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
