/* A driver without a GPU: memory is the host's, work is done at once. Built by test_cuda.py. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef unsigned long long u64;
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec*1e3+t.tv_nsec/1e6;}
int cuInit(unsigned f){return 0;}
int cuDriverGetVersion(int*v){*v=13000;return 0;}
int cuDeviceGet(int*d,int o){*d=o;return 0;}
int cuDeviceGetName(char*s,int n,int d){strncpy(s,"Stub GPU",n);return 0;}
int cuDeviceGetAttribute(int*v,int a,int d){*v=a==75?9:a==76?0:-1;return 0;}
int cuDevicePrimaryCtxRetain(void**c,int d){*c=(void*)0x7f0012345678;return 0;}
int cuCtxSetCurrent(void*c){return c==(void*)0x7f0012345678?0:201;}
int cuMemGetInfo_v2(size_t*f,size_t*t){*f=3ull<<30;*t=4ull<<30;return 0;}
int cuMemAlloc_v2(u64*p,size_t n){if(n>(1ull<<32))return 2;*p=(u64)malloc(n);return 0;}
int cuMemFree_v2(u64 p){free((void*)p);return 0;}
int cuMemAllocHost_v2(void**p,size_t n){*p=malloc(n);return 0;}
int cuMemFreeHost(void*p){free(p);return 0;}
int cuMemcpyHtoDAsync_v2(u64 d,void*s,size_t n,void*st){memcpy((void*)d,s,n);return 0;}
int cuMemcpyDtoHAsync_v2(void*d,u64 s,size_t n,void*st){memcpy(d,(void*)s,n);return 0;}
int cuStreamCreate(void**s,unsigned f){*s=malloc(8);return f==1?0:1;}
int cuStreamSynchronize(void*s){return 0;}
int cuStreamDestroy_v2(void*s){free(s);return 0;}
int cuStreamBeginCapture_v2(void*s,unsigned m){return 0;}
int cuStreamEndCapture(void*s,void**g){*g=malloc(8);return 0;}
int cuGraphInstantiateWithFlags(void**e,void*g,u64 f){*e=malloc(8);return f;}
int cuGraphLaunch(void*e,void*s){return 0;}
int cuGraphExecDestroy(void*e){free(e);return 0;}
int cuGraphDestroy(void*g){free(g);return 0;}
int cuEventCreate(void**e,unsigned f){*e=malloc(sizeof(double));return 0;}
int cuEventDestroy_v2(void*e){free(e);return 0;}
int cuEventRecord(void*e,void*s){*(double*)e=now();return 0;}
int cuEventSynchronize(void*e){return 0;}
int cuEventElapsedTime(float*m,void*a,void*b){*m=*(double*)b-*(double*)a;return 0;}
int cuGetErrorString(int s,const char**t){*t="stub error";return 0;}
