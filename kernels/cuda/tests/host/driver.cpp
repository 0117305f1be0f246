// A driver without a device: the functions of libcuda that we call, on top of our kernels compiled for the processor.
//
// Owns what makes a real driver hard to use: whatever is asked of a stream is put off until somebody waits, and only
// what must have happened by then happens, but for streams that EAGER names, a bit each, which do all at once. A copy from memory that was changed too early, or a missing wait between
// streams, gives wrong bytes here as it would on a device, only always. The environment describes the device.

#include "kernels.cpp"

#include <deque>
#include <functional>
#include <string>
#include <vector>

typedef int Result;
typedef unsigned long long Address;

const Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_PTX = 218, NOT_FOUND = 500;

static long long setting(const char *name, long long otherwise) {
    const char *value = std::getenv(name);
    return value ? std::atoll(value) : otherwise;
}

// Work put off, and how much of it there ever was and has been done.
struct Stream {
    std::deque<std::function<void()>> waiting;
    size_t asked = 0, done = 0;
    bool eager = false;

    void ask(std::function<void()> work) {
        waiting.push_back(std::move(work));
        ++asked;
        if (eager) {
            run_to(asked);
        }
    }

    void run_to(size_t place) {
        while (done < place) {
            std::function<void()> work = std::move(waiting.front());
            waiting.pop_front();
            work();
            ++done;
        }
    }
};

// A place in a stream.
struct Event {
    Stream *stream = nullptr;
    size_t place = 0;
};

struct Function {
    std::string name;
    std::vector<size_t> parameter_bytes;
};

static Address allocated = 0;

extern "C" {

Result cuInit(unsigned) { return setting("DEVICES", 1) == 0 ? NO_DEVICE : SUCCESS; }

Result cuDriverGetVersion(int *version) {
    *version = (int)setting("VERSION", 12020);
    return SUCCESS;
}

Result cuDeviceGetCount(int *count) {
    *count = (int)setting("DEVICES", 1);
    return SUCCESS;
}

Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return SUCCESS;
}

Result cuDeviceGetAttribute(int *value, int attribute, int) {
    long long capability = setting("CAPABILITY", 80);
    *value = (int)(attribute == 75 ? capability / 10 : capability % 10);
    return attribute == 75 || attribute == 76 ? SUCCESS : INVALID_VALUE;
}

Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = (size_t)setting("MEMORY", 4ll << 30);
    return SUCCESS;
}

Result cuDeviceGetName(char *name, int length, int) {
    std::strncpy(name, "a device that is none", (size_t)length);
    return SUCCESS;
}

Result cuGetErrorName(Result, const char **name) {
    *name = "AN_ERROR";
    return SUCCESS;
}

Result cuGetErrorString(Result, const char **text) {
    *text = "an error";
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(void **context, int) {
    *context = &allocated;
    return SUCCESS;
}

Result cuDevicePrimaryCtxRelease_v2(int) {
    // Whoever lets go of the device has given everything back.
    if (allocated != 0) {
        std::abort();
    }
    return SUCCESS;
}

Result cuCtxSetCurrent(void *) { return SUCCESS; }

Result cuModuleLoadData(void **module, const void *image) {
    std::string text = static_cast<const char *>(image);
    if (text.find(".target sm_80") == std::string::npos) {
        return INVALID_PTX;
    }
    *module = new std::string(text);
    return SUCCESS;
}

Result cuModuleUnload(void *module) {
    delete static_cast<std::string *>(module);
    return SUCCESS;
}

Result cuModuleGetFunction(void **function, void *module, const char *name) {
    const std::string &text = *static_cast<std::string *>(module);
    size_t start = text.find(std::string(".visible .entry ") + name + "(");
    if (start == std::string::npos) {
        return NOT_FOUND;
    }
    auto *found = new Function{name, {}};
    size_t end = text.find(')', start);
    for (size_t at = text.find(".param .", start); at < end; at = text.find(".param .", at + 1)) {
        found->parameter_bytes.push_back(text.compare(at + 9, 2, "64") == 0 ? 8 : 4);
    }
    *function = found;
    return SUCCESS;
}

Result cuStreamCreate(void **stream, unsigned) {
    static int created = 0;
    auto *made = new Stream;
    made->eager = setting("EAGER", 0) >> created++ & 1;
    *stream = made;
    return SUCCESS;
}

Result cuStreamSynchronize(void *stream) {
    auto *all = static_cast<Stream *>(stream);
    all->run_to(all->asked);
    return SUCCESS;
}

Result cuStreamDestroy_v2(void *stream) {
    delete static_cast<Stream *>(stream);
    return SUCCESS;
}

Result cuEventCreate(void **event, unsigned) {
    *event = new Event;
    return SUCCESS;
}

Result cuEventRecord(void *event, void *stream) {
    auto *queue = static_cast<Stream *>(stream);
    *static_cast<Event *>(event) = Event{queue, queue->asked};
    return SUCCESS;
}

Result cuEventSynchronize(void *event) {
    auto *at = static_cast<Event *>(event);
    if (at->stream) {
        at->stream->run_to(at->place);
    }
    return SUCCESS;
}

Result cuEventDestroy_v2(void *event) {
    delete static_cast<Event *>(event);
    return SUCCESS;
}

Result cuStreamWaitEvent(void *stream, void *event, unsigned) {
    Event at = *static_cast<Event *>(event);
    static_cast<Stream *>(stream)->ask([at] {
        if (at.stream) {
            at.stream->run_to(at.place);
        }
    });
    return SUCCESS;
}

Result cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    *memory = std::malloc(bytes);
    return SUCCESS;
}

Result cuMemFreeHost(void *memory) {
    std::free(memory);
    return SUCCESS;
}

// Memory is full of ones first, since a device's is full of anything.
Result cuMemAlloc_v2(Address *address, size_t bytes) {
    void *memory = std::malloc(bytes);
    if (!memory) {
        return OUT_OF_MEMORY;
    }
    std::memset(memory, 0xff, bytes);
    *address = reinterpret_cast<Address>(memory);
    ++allocated;
    return SUCCESS;
}

Result cuMemFree_v2(Address address) {
    std::free(reinterpret_cast<void *>(address));
    --allocated;
    return SUCCESS;
}

Result cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void *stream) {
    static_cast<Stream *>(stream)->ask([=] { std::memset(reinterpret_cast<void *>(to), byte, bytes); });
    return SUCCESS;
}

Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    static_cast<Stream *>(stream)->ask([=] { std::memcpy(reinterpret_cast<void *>(to), from, bytes); });
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    bool fault = setting("FAULT", 0) != 0 && bytes > 64;
    static_cast<Stream *>(stream)->ask([=] {
        std::memcpy(to, reinterpret_cast<void *>(from), bytes);
        static_cast<unsigned char *>(to)[bytes / 2] ^= fault ? 1 : 0;
    });
    return SUCCESS;
}

Result cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned,
                      void *stream, void **parameters, void **) {
    if (x == 0 || y == 0 || z != 1 || y > 65535) {
        return INVALID_VALUE;
    }
    const auto &kernel = *static_cast<Function *>(function);
    std::vector<u64> values;
    for (size_t at = 0; at < kernel.parameter_bytes.size(); ++at) {
        u64 value = 0;
        std::memcpy(&value, parameters[at], kernel.parameter_bytes[at]);
        values.push_back(value);
    }
    static_cast<Stream *>(stream)->ask([=]() mutable {
        std::vector<void *> pointers;
        for (u64 &value : values) {
            pointers.push_back(&value);
        }
        unsigned blocks[2] = {x, y};
        if (!launch(kernel.name.c_str(), blocks, threads, pointers.data())) {
            std::abort();
        }
    });
    return SUCCESS;
}

}
