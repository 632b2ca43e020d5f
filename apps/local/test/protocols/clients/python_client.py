"""A gRPC client that knows nothing of MAD but its descriptors: reads calls as JSON lines, writes answers as JSON lines.

The only argument is a FileDescriptorSet (`buf build proto -o …`). Needs grpcio and protobuf, as Debian's
python3-grpcio and python3-protobuf bring them.
"""

import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

pool = descriptor_pool.DescriptorPool()
with open(sys.argv[1], "rb") as file:
    for one in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
        pool.AddSerializedFile(one.SerializeToString())


def message_class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return factory.GetPrototype(descriptor)


factory = None if hasattr(message_factory, "GetMessageClass") else message_factory.MessageFactory(pool)
Status = message_class(pool.FindMessageTypeByName("google.rpc.Status"))
channels = {}


def channel_to(address):
    if address not in channels:
        channels[address] = grpc.insecure_channel(address)
    return channels[address]


def details_of(error):
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = Status.FromString(value)
            return [{"type": d.type_url, "value": base64.b64encode(d.value).decode()} for d in status.details]
    return []


def call(line):
    asked = json.loads(line)
    service = pool.FindServiceByName(asked["service"])
    method = service.FindMethodByName(asked["method"])
    request_class, response_class = message_class(method.input_type), message_class(method.output_type)
    path = "/%s/%s" % (asked["service"], asked["method"])
    kinds = ("stream" if asked["requestStream"] else "unary", "stream" if asked["responseStream"] else "unary")
    invoke = getattr(channel_to(asked["address"]), "%s_%s" % kinds)(
        path,
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    requests = [json_format.ParseDict(r, request_class(), descriptor_pool=pool) for r in asked["requests"]]
    responses = []
    answer = {"id": asked["id"], "code": "OK", "message": "", "details": [], "responses": responses}
    try:
        said = invoke(
            iter(requests) if asked["requestStream"] else requests[0],
            timeout=asked.get("timeout"),
            metadata=list(asked["headers"].items()),
        )
        for response in said if asked["responseStream"] else [said]:
            responses.append(json_format.MessageToDict(response, descriptor_pool=pool))
    except grpc.RpcError as error:
        answer.update(code=error.code().name, message=error.details() or "", details=details_of(error))
    return json.dumps(answer)


with ThreadPoolExecutor(8) as threads:
    for future in [threads.submit(call, line) for line in sys.stdin]:
        print(future.result(), flush=True)
