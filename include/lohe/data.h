#pragma once

/// Data sets, transforms, samplers and loaders.
#include "lohe/data/dataset.h"
#include "lohe/data/loader.h"
#include "lohe/data/samplers.h"
#include "lohe/data/transforms.h"
