// The store of the streams: Azure Managed Redis, signed in to with Entra ID only.
param name string
param location string
param tags object
param principalId string
param skuName string

@description('Disabled: one node, cheaper; a stream is then lost with it.')
@allowed([
  'Enabled'
  'Disabled'
])
param highAvailability string = 'Enabled'

// EnterpriseCluster: one address behind a proxy, so one connection and one certificate's name, at any size.
//   Every script's keys share a hash tag, so the proxy always finds one shard for it.
// OSSCluster: clients talk to the shards themselves, without the proxy's hop: for more than one busy shard.
//   The product follows the cluster's map by itself.
// NoCluster: one shard, up to 25 GB; the only policy that can be changed later without a new database.
@allowed([
  'EnterpriseCluster'
  'NoCluster'
  'OSSCluster'
])
param clusteringPolicy string

var port = 10000 // Azure Managed Redis has this one

resource cluster 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: skuName
  }
  properties: {
    highAvailability: highAvailability
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: cluster
  name: 'default'
  properties: {
    port: port
    clientProtocol: 'Encrypted'
    clusteringPolicy: clusteringPolicy
    accessKeysAuthentication: 'Disabled'
    // Every key of the product expires. The service's default, VolatileLRU, evicts just such keys when memory
    // is short: streams would vanish from under their readers. NoEviction refuses new writes instead.
    evictionPolicy: 'NoEviction'
    // A restart without it forgets every stream; with it, at most the last second.
    persistence: {
      aofEnabled: true
      aofFrequency: '1s'
      rdbEnabled: false
    }
  }
}

resource access 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = {
  parent: database
  name: 'gateway'
  properties: {
    accessPolicyName: 'default' // the only policy there is
    user: {
      objectId: principalId
    }
  }
}

output hostName string = cluster.properties.hostName
output url string = 'rediss://${cluster.properties.hostName}:${port}'
